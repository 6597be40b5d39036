package manifests

import (
	"encoding/json"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// policy is what a manifest may register.
func (o Options) policy() oauth.Policy {
	return oauth.Policy{
		GrantTypes: o.GrantTypes, Scopes: o.Scopes, Claims: o.Claims, Connectors: o.Connectors, Groups: o.Groups,
		Issuers: o.Issuers, Workloads: true, WildcardPort: true, Native: true, AnyScheme: true, Loopback: true,
		Development: o.Dev,
	}
}

// checkOAuth checks the client that spec.oauth asks for against the rules of clients. A key whose type is wrong, or
// that is empty where it must not be, has been reported already, and is not reported again.
func (c *checker) checkOAuth(written *strictyaml.Value, path string) {
	if written == nil || written.Kind != strictyaml.Mapping {
		return
	}
	said := make(map[string]bool)
	for _, fault := range c.Faults[c.before:].Errors() {
		said[fault.Path] = true
	}
	behind := written.Field("forwardAuth")
	for _, v := range oauth.Check(clientAsked(written), c.opts.policy()) {
		if v.Key == "redirectUris" && v.Code == "required" && behind != nil && !behind.IsNull() {
			continue // what is wrong there has been reported
		}
		below := v.Key + v.At
		at, fault := path+"."+below, c.Errorf
		if v.Warning {
			fault = c.Warnf
		}
		if !said[at] {
			fault(valuePlace(written, below, v.Surplus), at, v.Code, c.meant(v), "%s", v.Message)
		}
	}
}

// meant is what the author of a manifest probably meant.
func (c *checker) meant(v oauth.Violation) string {
	if v.Nearest != "" || len(v.Choices) == 0 {
		return v.Nearest
	}
	return oauth.NearestName(v.Asked, v.Choices, c.nearest)
}

// valuePlace finds what is at a path below v, or else where it is missing. With key it is the place of the key, not
// that of its value.
func valuePlace(v *strictyaml.Value, path string, key bool) strictyaml.Position {
	at := v.Position
	for _, m := range v.Fields {
		if rest, is := strings.CutPrefix(path, m.Key); is && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			if rest == "" && key {
				return m.Position
			}
			return valuePlace(m.Value, strings.TrimPrefix(rest, "."), key)
		}
	}
	for i, item := range v.Items {
		if rest, is := strings.CutPrefix(path, itemPath("", i)); is {
			return valuePlace(item, strings.TrimPrefix(rest, "."), key)
		}
	}
	return at
}

// clientAsked is the client that spec.oauth asks for, as far as it can be understood. An item of a list that is no
// text is an empty one, so that those behind it keep their places.
func clientAsked(written *strictyaml.Value) *oauth.Client {
	asked := new(oauth.Client)
	for _, f := range oauth.Fields() {
		v := written
		for name := range strings.SplitSeq(f.Key, ".") {
			v = v.Field(name)
		}
		if v == nil || v.IsNull() {
			continue
		}
		switch to := f.Of(asked).(type) {
		case *string:
			if f.Kind == oauth.KindKeys {
				text, _ := json.Marshal(v.JSON()) // it came from JSON's types
				*to = string(text)
			} else if v.IsText() {
				*to = v.Text
			}
		case *bool:
			*to = v.Data == true
		case *[]string:
			for _, item := range v.Items {
				text := ""
				if item.IsText() {
					text = item.Text
				}
				*to = append(*to, text)
			}
		case *[]oauth.WorkloadIdentity:
			for _, item := range v.Items {
				*to = append(*to, oauth.WorkloadIdentity{
					Issuer: textAt(item, "issuer"), Subject: textAt(item, "subject"), Audience: textAt(item, "audience")})
			}
		case **int64:
			if n, ok := wholeNumber(v); ok {
				*to = &n
			}
		}
	}
	return asked
}

// textAt is the text at a key; empty if it is none.
func textAt(v *strictyaml.Value, key string) string {
	if at := v.Field(key); at != nil && at.IsText() {
		return at.Text
	}
	return ""
}

// registrationOf is a client as hooks see it.
func registrationOf(c *storage.Client) *plugins.Registration {
	if c == nil {
		return nil
	}
	r := c.Client
	return &r
}

// checkRegistration checks what a hook made of a manifest against the rules of the manifest itself.
func (d *Deployer) checkRegistration(r *plugins.Registration) []plugins.Notice {
	opts := d.set().parsing
	opts.Dev = d.set().dev
	var notices []plugins.Notice
	for _, v := range oauth.Check(r, opts.policy()) {
		if !v.Warning {
			notices = append(notices, plugins.Notice{
				Code: strings.ReplaceAll(v.Code, "-", "_"), Path: "spec.oauth." + v.Key + v.At, Message: v.Message,
			})
		}
	}
	return notices
}
