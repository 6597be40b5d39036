package plugins

import (
	"reflect"
	"testing"

	"github.com/warifu/warifu/plugins/pluginpb"
	"github.com/warifu/warifu/server/oauth"
)

// Every field of a registration reaches the other side as it was.
func TestRegistrationOnTheWire(t *testing.T) {
	zero := int64(0)
	full := new(Registration)
	names := make(map[string]bool)
	for _, f := range oauth.Fields() {
		names[f.Member()] = true
		switch to := f.Of(full).(type) {
		case *string:
			*to = f.Key
		case *bool:
			*to = true
		case **int64:
			*to = &zero
		case *[]string:
			*to = []string{f.Key, "and more"}
		case *[]oauth.WorkloadIdentity:
			*to = []oauth.WorkloadIdentity{{Issuer: "https://ci.example.com", Subject: "job", Audience: "here"},
				{Issuer: "i", Subject: "s"}}
		}
	}
	if got := registrationFromPB(registrationToPB(full)); !reflect.DeepEqual(got, full) {
		t.Errorf("got  %+v\nwant %+v", got, full)
	}
	if got := registrationFromPB(registrationToPB(&Registration{})); !reflect.DeepEqual(got, &Registration{}) {
		t.Errorf("of an empty one: %+v", got)
	}
	if registrationToPB(nil) != nil || registrationFromPB(nil) != nil {
		t.Error("no registration has become one")
	}
	fields := new(pluginpb.Registration).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := fields.Get(i).JSONName(); !names[name] {
			t.Errorf("%s is on the wire, and in no table", name)
		}
	}
}
