package config

import (
	"strings"
	"testing"
)

func TestPeopleAreReadWithAllThatIsWrong(t *testing.T) {
	const bcrypted = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"
	const argon = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY"
	for name, c := range map[string]struct {
		text string
		want []string // faults; or ids and logins of people
	}{
		"one person": {"email: ann@example.com\nuserID: ann\nhash: " + bcrypted + "\n", []string{"ann ann@example.com/"}},
		"a list, in JSON": {`[{"email":"ann@example.com","groups":["a"]},{"username":"ben","hash":"` + argon + `"}]`,
			[]string{" ann@example.com/", " /ben"}},
		"a part of a configuration": {"staticPasswords:\n- {email: ann@example.com, userID: ann}\n",
			[]string{"ann ann@example.com/"}},
		"several documents": {"email: ann@example.com\n---\n- email: ben@example.com\n---\n",
			[]string{" ann@example.com/", " ben@example.com/"}},
		"nobody": {"", []string{"people.yaml: nobody is in this file"}},
		"one with faults": {"emial: ann@example.com\nbirthdate: 1990/04/01\ngroups: [a, a]\n", []string{
			`people.yaml:1:1: email is required (or username): people sign in with it`,
			`people.yaml:1:1: emial is not a key of a person (did you mean "email"?)`,
			`people.yaml:2:12: birthdate must be a date`, `people.yaml:3:13: groups[1] is in the list twice`}},
		"faults in a list": {"- email: Ann <ann@example.com>\n- username: ben\n  userID: a b\n  hash: secret\n" +
			"  hashFile: x\n---\n- email: 7\n",
			[]string{
				`people.yaml:1:10: [0].email must be an e-mail address`,
				`people.yaml:3:11: [1].userID is not an id of a user`,
				`people.yaml:4:9: [1].hash must be a bcrypt hash, 60 characters that begin with $2a$, $2b$ or $2y$, or one of argon2id`,
				`people.yaml:5:13: [1].hashFile is for the configuration`,
				`people.yaml:7:10: [0].email must be a string, but is the number 7`}},
		"names that nobody sees or types": {"- email: \"ann\\u200B@example.com\"\n- username: \"\\u202Enna\"\n" +
			"- username: アン\n", []string{
			`people.yaml:1:10: [0].email must be what people see and type, and has the character U+200B`,
			`people.yaml:2:13: [1].username must be what people see and type, and has the character U+202E`}},
		"the id of one is what another signs in with": {"- {username: ann, userID: a1}\n- {username: ben, userID: ann}\n" +
			"- {username: cat, userID: cat}\n", []string{
			`people.yaml:2:27: [1].userID is what another person signs in with, in people.yaml:1`}},
		"twins by other keyboards": {"- {username: \"caf\\u00e9\"}\n- {username: \"Cafe\\u0301\"}\n- {username: ann}\n" +
			"- {username: ａｎｎ}\n", []string{
			`people.yaml:2:14: [1].username is that of another person as well, in people.yaml:1`,
			`people.yaml:4:14: [3].username is that of another person as well, in people.yaml:3`}},
		"twins": {"- {email: ann@example.com, userID: ann}\n- {username: ANN@example.com, userID: ann}\n", []string{
			`people.yaml:2:14: [1].username is that of another person as well, in people.yaml:1`,
			`people.yaml:2:39: [1].userID is that of another person as well, in people.yaml:1`}},
		"keys of a configuration": {"issuer: https://id.example.com\nstaticPasswords: []\n",
			[]string{`people.yaml:1:1: issuer is of no use beside staticPasswords`}},
		"a costly hash": {"email: ann@example.com\nhash: " + strings.Replace(argon, "m=19456", "m=9999999", 1), []string{
			`people.yaml:2:7: hash cannot be used: it has parameters out of bounds`}},
	} {
		people, faults := ReadPeople("people.yaml", []byte(c.text))
		if twins := Twins(people); len(twins) > 0 {
			twins.Sort()
			people, faults = nil, twins
		}
		var got []string
		for _, f := range faults {
			got = append(got, f.String())
		}
		for _, p := range people {
			got = append(got, p.UserID+" "+p.Email+"/"+p.Username)
		}
		for i, want := range c.want {
			if len(got) != len(c.want) || !strings.HasPrefix(got[i], want) {
				t.Errorf("%s:\n%s", name, strings.Join(got, "\n"))
				break
			}
		}
		if strings.Contains(strings.Join(got, "\n"), "secret") {
			t.Errorf("%s: the hash is told: %s", name, got)
		}
	}
}
