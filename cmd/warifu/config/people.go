package config

import (
	"fmt"
	"net/mail"
	"reflect"
	"slices"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// People whose accounts operators keep by commands are written with the keys of staticPasswords, so that whoever is
// there can be taken from there. What differs: a password need not be known yet, nor an id; a hash may be one of
// argon2id as well; and nothing is read from files, because another machine may read the text.

// Person is somebody in a file of people.
type Person struct {
	connector.Identity
	Hash string // of the first password; "" for none

	file   string
	at     string                         // the path of the person
	places map[string]strictyaml.Position // by path
}

// Fault says what is wrong with a key of a person, or with the person if key is empty.
func (p *Person) Fault(key, code, message string) strictyaml.Fault {
	path := p.at
	if key != "" {
		path = strictyaml.Join(path, key)
	}
	place, known := p.places[path]
	if !known {
		place = p.places[p.at]
	}
	if path != "" {
		message = path + " " + message
	}
	return strictyaml.Fault{File: p.file, Line: place.Line, Column: place.Column, Path: path, Code: code,
		Message: message, Severity: strictyaml.SeverityError}
}

// ReadPeople reads a file: one person, a list of people, or the key staticPasswords with such a list, in each of its
// documents. It finds everything that is wrong with the text itself; then nobody is returned.
func ReadPeople(file string, data []byte) ([]Person, strictyaml.Faults) {
	whole := newReader(file)
	documents := strictyaml.Split(whole.Report, data)
	faults := whole.Faults
	var people []Person
	for _, document := range documents {
		r := newReader(file)
		r.of = "a person"
		people = append(people, r.people(document)...)
		faults = append(faults, r.Faults...)
	}
	if len(faults.Errors()) == 0 && len(people) == 0 {
		faults = append(faults, strictyaml.Fault{File: file, Code: "required", Message: "nobody is in this file",
			Severity: strictyaml.SeverityError})
	}
	faults.Sort()
	if len(faults.Errors()) > 0 {
		return nil, faults
	}
	return people, faults
}

// people are those of a document.
func (r *reader) people(document strictyaml.Document) []Person {
	root := document.Tree(r.Report)
	if root == nil || root.IsNull() {
		return nil
	}
	const section = "staticPasswords"
	var list []StaticPassword
	at := func(i int) string { return fmt.Sprintf("[%d]", i) }
	switch {
	case root.Kind == strictyaml.List:
		r.value("", root, reflect.ValueOf(&list).Elem())
	case root.Field(section) != nil:
		at = func(i int) string { return fmt.Sprintf("%s[%d]", section, i) }
		for _, m := range root.Fields {
			if m.Key != section {
				r.places[m.Key] = m.Position
				r.fault(m.Key, "unknown-key", "", "is of no use beside staticPasswords: only people are read here")
			}
		}
		r.value(section, root.Field(section), reflect.ValueOf(&list).Elem())
	default:
		list = make([]StaticPassword, 1)
		at = func(int) string { return "" }
		r.value("", root, reflect.ValueOf(&list[0]).Elem())
	}
	r.checking = true
	people := make([]Person, len(list))
	for i, p := range list {
		people[i] = Person{Identity: p.Identity(), Hash: p.Hash, file: r.File, at: at(i), places: r.places}
		r.checkManaged(at(i), p)
	}
	return people
}

// checkManaged is what checkPasswords is for staticPasswords.
func (r *reader) checkManaged(at string, p StaticPassword) {
	key := func(name string) string { return strictyaml.Join(at, name) }
	switch {
	case p.Email == "" && p.Username == "":
		r.fault(key("email"), "required", "", "is required (or username): people sign in with it")
	case p.Email != "":
		if a, err := mail.ParseAddress(p.Email); err != nil || a.Address != p.Email {
			r.fault(key("email"), "email", "", "must be an e-mail address, but is %q", p.Email)
		}
	}
	if p.UserID != "" {
		if err := storage.CheckUserID(p.UserID); err != nil {
			r.fault(key("userID"), "value", "", "is %s", err)
		}
	}
	if p.HashFile != "" {
		r.fault(key("hashFile"), "value", "", "is for the configuration: put what the file holds into hash")
	}
	if p.Hash != "" {
		if err := checkAnyHash(p.Hash); err != nil {
			r.fault(key("hash"), "hash", "", "%s", err)
		}
	}
	r.checkPerson(at, p)
}

// checkAnyHash takes hashes of argon2id beside those of checkHash.
func checkAnyHash(hash string) error {
	if len(hash) > 0 && hash[0] == '$' && (len(hash) < 2 || hash[1] != '2') {
		return wordOf(factor.CheckHash(hash))
	}
	if err := checkHash(hash); err != nil {
		return fmt.Errorf("%w, or one of argon2id", err)
	}
	return nil
}

func wordOf(err error) error {
	if err != nil {
		return fmt.Errorf("cannot be used: it %w", err)
	}
	return nil
}

// Twins are faults of people who share an id, or a name or address with which they sign in.
func Twins(people []Person) strictyaml.Faults {
	var faults strictyaml.Faults
	type first struct {
		person int
		key    string
	}
	ids, logins := make(map[string]first), make(map[string]first)
	take := func(taken map[string]first, i int, key, value string) {
		had, is := taken[value]
		switch {
		case value == "":
		case !is:
			taken[value] = first{i, key}
		case had.person != i:
			other := people[had.person].Fault(had.key, "", "")
			faults = append(faults, people[i].Fault(key, "duplicate",
				fmt.Sprintf("is that of another person as well, in %s:%d", other.File, other.Line)))
		}
	}
	for i, p := range people {
		take(ids, i, "userID", p.UserID)
		for _, login := range slices.Compact([]string{storage.NormalLogin(p.Email), storage.NormalLogin(p.Username)}) {
			key := "email"
			if login != storage.NormalLogin(p.Email) {
				key = "username"
			}
			take(logins, i, key, login)
		}
	}
	for i, p := range people { // a command takes either, and would mean the other one
		if had, is := logins[storage.NormalLogin(p.UserID)]; is && had.person != i {
			other := people[had.person].Fault(had.key, "", "")
			faults = append(faults, p.Fault("userID", "duplicate",
				fmt.Sprintf("is what another person signs in with, in %s:%d", other.File, other.Line)))
		}
	}
	return faults
}
