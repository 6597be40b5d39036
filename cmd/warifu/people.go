package main

import (
	"context"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/storage"
)

// people is the admin API's view of the configuration about people, and of the links that the server makes.
type people struct{ *instance }

var (
	_ admin.People = people{}
	_ admin.Links  = people{}
)

// Read is [admin.People.Read].
func (p people) Read(docs []admin.Document) ([]admin.Person, error) {
	var all []config.Person
	var faults strictyaml.Faults
	for _, doc := range docs {
		some, wrong := config.ReadPeople(doc.Name, []byte(doc.Content))
		all, faults = append(all, some...), append(faults, wrong...)
	}
	faults = append(faults, config.Twins(all)...)
	if faults.Err() != nil {
		return nil, admin.InvalidPeople(faultsOf(faults.Errors()))
	}
	read := make([]admin.Person, len(all))
	for i, person := range all {
		record := server.UserRecord(person.Identity)
		record.ID = p.inUse.Load().SubjectOf(record.ID)
		read[i] = admin.Person{User: record, Hash: person.Hash, Fault: func(key, code, message string) admin.Fault {
			return faultsOf(strictyaml.Faults{person.Fault(key, code, message)})[0]
		}}
	}
	return read, nil
}

// Configured is [admin.People.Configured].
func (p people) Configured(login string) (string, bool) {
	cfg := p.inUse.Load()
	if !cfg.EnablePasswordDB {
		return "", false
	}
	for _, u := range cfg.Users {
		for _, has := range []string{u.Email, u.Username} {
			if has != "" && storage.NormalLogin(has) == storage.NormalLogin(login) {
				return u.UserID, true
			}
		}
	}
	return "", false
}

// MakeLink is [admin.Links.MakeLink].
func (p people) MakeLink(ctx context.Context, a *storage.Account, kind string, valid time.Duration) (string, error) {
	return p.public().MakeLink(ctx, a, kind, valid)
}

// SendLink is [admin.Links.SendLink].
func (p people) SendLink(u *storage.User, kind, link string, valid time.Duration) bool {
	return p.public().SendLink(u, kind, link, valid)
}

// Tell is [admin.Links.Tell].
func (p people) Tell(u *storage.User, what admin.Told) {
	p.public().Notify(u, map[admin.Told]mail.Kind{
		admin.ToldPassword: mail.OperatorPassword, admin.ToldFactors: mail.FactorsRemoved}[what])
}
