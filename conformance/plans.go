package conformance

import "strings"

// Module is one test, under its name at the OpenID Foundation.
type Module struct {
	Name    string
	Summary string
	run     func(*trial)
}

// Plan is a list of modules, under its name at the OpenID Foundation, and how they are run.
type Plan struct {
	Name     string
	Auth     string // how the clients authenticate
	Dynamic  bool   // clients register themselves; otherwise they are those of the configuration
	FormPost bool   // authorization responses by response_mode=form_post
	Modules  []Module
}

// variant says how the plan runs a module, in the Foundation's words.
func (p Plan) variant(m Module) string {
	auth, registration, mode := p.Auth, "static_client", "default"
	if m.Name == "oidcc-server-client-secret-post" {
		auth = secretPost
	}
	if p.Dynamic {
		registration = "dynamic_client"
	}
	if p.FormPost {
		mode = "form_post"
	}
	return strings.Join([]string{"code", auth, mode, registration}, ", ")
}

// Plans are all plans, with their modules in the Foundation's order.
func Plans() []Plan {
	return []Plan{
		{Name: "oidcc-basic-certification-test-plan", Auth: secretBasic, Modules: basicModules()},
		{Name: "oidcc-config-certification-test-plan", Auth: secretBasic, Modules: configModules()},
		{Name: "oidcc-formpost-basic-certification-test-plan", Auth: secretBasic, FormPost: true, Modules: basicModules()},
		{Name: "oidcc-rp-initiated-logout-certification-test-plan", Auth: secretBasic, Modules: rpLogoutModules()},
		{Name: "oidcc-backchannel-rp-initiated-logout-certification-test-plan", Auth: secretBasic,
			Modules: backchannelModules()},
		{Name: "oidcc-frontchannel-rp-initiated-logout-certification-test-plan", Auth: secretBasic,
			Modules: frontchannelModules()},
		{Name: "oidcc-3rdparty-init-login-certification-test-plan", Auth: secretBasic, Dynamic: true,
			Modules: thirdPartyModules()},
		{Name: "oidcc-dynamic-certification-test-plan", Auth: privateKeyJWT, Dynamic: true, Modules: dynamicModules()},
	}
}

// Find is a module of a plan; the plan's name may be a prefix.
func Find(plan, module string) (Plan, Module, bool) {
	for _, p := range Plans() {
		for _, m := range p.Modules {
			if strings.HasPrefix(p.Name, plan) && m.Name == module {
				return p, m, true
			}
		}
	}
	return Plan{}, Module{}, false
}
