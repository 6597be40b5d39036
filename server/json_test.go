package server

import (
	"encoding/json"
	"reflect"
	"testing"
)

// What is put together by hand is what package json makes: also for values that have to be escaped, of which claims may
// consist, and with each field there and not there.
func FuzzMarshal(f *testing.F) {
	f.Add("https://id.example.com", "user-ann", int64(1), uint(0))
	f.Add("a\"b\\c<d>&e\u2028\x00\x7f\xff", "割符", int64(-1), ^uint(0))
	f.Add("id", "<\"割符\">", int64(1795977089), ^uint(1<<18|1<<24)) // all that is put together by hand
	f.Add("", "", int64(0), uint(0b1010101))
	f.Fuzz(func(t *testing.T, text, other string, number int64, fields uint) {
		var claims accessClaims
		fill(reflect.ValueOf(&claims).Elem(), text, other, number, fields)
		same(t, claims)
		reply := tokenReply{TokenType: text, ExpiresIn: number, Scope: other}
		token := "eyJhbGciOiJFUzI1NiJ9.e30.-_A0"
		for i, at := range []*string{&reply.AccessToken, &reply.RefreshToken, &reply.IDToken} {
			if fields>>i&1 == 1 {
				*at = token
			}
		}
		same(t, reply)
	})
}

func same(t *testing.T, v any) {
	t.Helper()
	got, err := marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := json.Marshal(v); string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// fill gives the fields of a struct a value, those whose bits are set; lists have as many elements as two bits say.
func fill(v reflect.Value, text, other string, number int64, fields uint) {
	for i := range v.NumField() {
		field, bits := v.Field(i), fields>>(2*i)
		if bits&1 == 0 {
			continue
		}
		switch field.Interface().(type) {
		case string:
			field.SetString([]string{text, other}[i%2])
		case int64:
			field.SetInt(number)
		case *confirmation:
			field.Set(reflect.ValueOf(&confirmation{Thumbprint: text}))
		case *actor:
			field.Set(reflect.ValueOf(&actor{Subject: other}))
		default: // lists of strings
			list := append(make([]string, 0), []string{text, other, text}[:min(bits>>1&3, 3)]...)
			field.Set(reflect.ValueOf(list).Convert(field.Type()))
		}
	}
}
