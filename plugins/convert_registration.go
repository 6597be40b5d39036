package plugins

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/warifu/warifu/plugins/pluginpb"
	"github.com/warifu/warifu/server/oauth"
)

// A registration has the same fields on the wire, under the same names in camelCase. A test holds that; nil and empty
// lists are one there, and an absent number is not 0.

// onWire is the field of the message for a row of the table.
func onWire(m protoreflect.Message, f *oauth.Field) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByJSONName(f.Member())
}

func registrationToPB(r *Registration) *pluginpb.Registration {
	if r == nil {
		return nil
	}
	out := new(pluginpb.Registration)
	m := out.ProtoReflect()
	for _, f := range oauth.Fields() {
		if !f.IsSet(r) {
			continue
		}
		switch field := onWire(m, f); v := f.Of(r).(type) {
		case *string:
			m.Set(field, protoreflect.ValueOfString(*v))
		case *bool:
			m.Set(field, protoreflect.ValueOfBool(*v))
		case **int64:
			m.Set(field, protoreflect.ValueOfInt64(**v))
		case *[]string:
			list := m.Mutable(field).List()
			for _, item := range *v {
				list.Append(protoreflect.ValueOfString(item))
			}
		case *[]oauth.WorkloadIdentity:
			list := m.Mutable(field).List()
			for _, id := range *v {
				item := &pluginpb.Identity{Issuer: id.Issuer, Subject: id.Subject, Audience: id.Audience}
				list.Append(protoreflect.ValueOfMessage(item.ProtoReflect()))
			}
		}
	}
	return out
}

func registrationFromPB(r *pluginpb.Registration) *Registration {
	if r == nil {
		return nil
	}
	out := new(Registration)
	m := r.ProtoReflect()
	for _, f := range oauth.Fields() {
		field := onWire(m, f)
		if !m.Has(field) {
			continue
		}
		switch to := f.Of(out).(type) {
		case *string:
			*to = m.Get(field).String()
		case *bool:
			*to = m.Get(field).Bool()
		case **int64:
			n := m.Get(field).Int()
			*to = &n
		case *[]string:
			list := m.Get(field).List()
			for i := range list.Len() {
				*to = append(*to, list.Get(i).String())
			}
		case *[]oauth.WorkloadIdentity:
			for _, id := range r.GetIdentities() {
				*to = append(*to, oauth.WorkloadIdentity{Issuer: id.GetIssuer(), Subject: id.GetSubject(),
					Audience: id.GetAudience()})
			}
		}
	}
	return out
}
