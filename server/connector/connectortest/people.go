package connectortest

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// Person is somebody in the directory.
type Person struct{ UID, Name, Email, OU string }

// Password is what they sign in with.
func (p Person) Password() string { return p.UID + "'s password" }

// DN is the name of their entry.
func (p Person) DN() string {
	return "uid=" + strings.ReplaceAll(p.UID, `\`, `\5c`) + ",ou=" + p.OU + "," + BaseDN
}

// People are those of [Entries].
var People = []Person{
	{"jane", "Jane Doe", "jane@example.org", "people"},
	{"john", "John Doe", "john@example.org", "people"},
	{"山田", "山田 太郎", "yamada@example.org", "people"},
	{`o(b*r)i\en`, "Paren *", "obrien@example.org", "people"},
	{"nomail", "No Mail", "", "people"},
	{"nopass", "No Password", "nopass@example.org", "people"}, // who has none
	{"twin1", "Twin", "twin@example.org", "people"},
	{"twin2", "Twin", "twin@example.org", "people"},
	{"crowd", "In Many Groups", "crowd@example.org", "people"},
	{"deep", "Deep Down", "deep@example.org",
		"a department with a name that is rather long,ou=another one above it,ou=people"},
}

// DN is the name of the entry of who has this uid.
func DN(uid string) string {
	for _, p := range People {
		if p.UID == uid {
			return p.DN()
		}
	}
	panic("nobody is " + uid)
}

// ManyGroups is in how many groups crowd is.
const ManyGroups = 10_000

// Entries are people below ou=people, and groups below ou=groups: jane and 山田 are in team, which is in department,
// which is in company, which is in team again; jane is in department herself, and in posix (posixGroup); john is in
// others. Below ou=many are those of crowd.
func Entries() string {
	var b strings.Builder
	entry := func(dn string, lines ...string) {
		fmt.Fprintf(&b, "dn:: %s\n", base64.StdEncoding.EncodeToString([]byte(dn)))
		for _, line := range lines {
			if attr, value, _ := strings.Cut(line, ": "); value != "" {
				fmt.Fprintf(&b, "%s:: %s\n", attr, base64.StdEncoding.EncodeToString([]byte(value)))
			}
		}
		b.WriteString("\n")
	}
	for _, ou := range []string{"people", "another one above it,ou=people",
		"a department with a name that is rather long,ou=another one above it,ou=people", "groups", "many"} {
		name, _, _ := strings.Cut(ou, ",")
		entry("ou="+ou+","+BaseDN, "objectClass: organizationalUnit", "ou: "+name)
	}
	for _, p := range People {
		password := p.Password()
		if p.UID == "nopass" {
			password = ""
		}
		entry(p.DN(), "objectClass: inetOrgPerson", "uid: "+p.UID, "cn: "+p.Name, "sn: "+p.Name, "mail: "+p.Email,
			"userPassword: "+password)
	}
	group := func(name string, members ...string) {
		lines := []string{"objectClass: groupOfNames", "cn: " + name}
		for _, m := range members {
			lines = append(lines, "member: "+m)
		}
		entry("cn="+name+",ou=groups,"+BaseDN, lines...)
	}
	in := func(name string) string { return "cn=" + name + ",ou=groups," + BaseDN }
	group("team", DN("jane"), DN("山田"), in("company"))
	group("department", in("team"), DN("jane"))
	group("company", in("department"))
	group("others", DN("john"))
	entry(in("posix"), "objectClass: posixGroup", "cn: posix", "gidNumber: 1", "memberUid: jane")
	for i := range ManyGroups {
		name := fmt.Sprintf("group%05d", i)
		entry("cn="+name+",ou=many,"+BaseDN, "objectClass: groupOfNames", "cn: "+name, "member: "+DN("crowd"))
	}
	return b.String()
}
