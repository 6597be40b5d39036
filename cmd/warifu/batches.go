package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/admin"
)

// A command takes any number of manifests; the server takes a bounded number in a request, and answers each in a
// bounded time. So they are sent in portions. What is wrong in any of them is known before anything is applied.

// Bounds of a portion. A file has at most 1 MiB, which may be six times as long in JSON.
const (
	portionApps  = admin.MaxDocuments
	portionBytes = 2 << 20
)

// portions keeps the order of documents. A document that is larger than a portion is one of its own, and the server
// says what is wrong with it.
func portions(docs []admin.Document) [][]admin.Document {
	var all [][]admin.Document
	apps, bytes := 0, 0
	for _, doc := range docs {
		more := 1 + strings.Count(doc.Content, "\n---")
		if len(all) == 0 || apps+more > portionApps || bytes+len(doc.Content) > portionBytes {
			all, apps, bytes = append(all, nil), 0, 0
		}
		apps, bytes = apps+more, bytes+len(doc.Content)
		all[len(all)-1] = append(all[len(all)-1], doc)
	}
	return all
}

// planned asks for the plans of all documents, in the order of portions.
func (c *cli) planned(ctx context.Context, docs []admin.Document) ([]admin.Planned, error) {
	var all []admin.Planned
	var wrong *admin.Problem
	source := make(map[string]string) // of apps
	for _, portion := range portions(docs) {
		planned, err := c.sent(ctx, "/v1/plan", applyRequest{Documents: portion})
		var problem *admin.Problem
		if errors.As(err, &problem) && len(problem.Faults) > 0 && (wrong == nil || wrong.Code == problem.Code) {
			if wrong != nil { // all that is wrong at once
				problem.Faults = append(wrong.Faults, problem.Faults...)
			}
			wrong = problem
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, p := range planned.Plans {
			if other, twice := source[p.App]; twice {
				return nil, usagef("the app %s is in %s and in %s: describe it once", p.App, other, p.Source)
			}
			source[p.App] = p.Source
		}
		all = append(all, planned)
	}
	if wrong != nil {
		return nil, wrong
	}
	return all, nil
}

// applied applies documents as they were planned. When a portion fails, what is returned beside the error is applied.
func (c *cli) applied(ctx context.Context, docs []admin.Document, plans []admin.Planned, words applyRequest) (
	admin.Planned, error) {
	var all admin.Planned
	for n, portion := range portions(docs) {
		words.Documents, words.Expected = portion, expected(plans[n])
		applied, err := c.sent(ctx, "/v1/apply", words)
		if err != nil {
			return all, err
		}
		all = together([]admin.Planned{all, applied})
	}
	return all, nil
}

// refused has the server refuse documents for which the caller's word is missing, so that it remembers why: the first
// portion with a plan that lacks it. The other portions are not sent: nothing is changed.
func (c *cli) refused(ctx context.Context, docs []admin.Document, plans []admin.Planned, words applyRequest,
	all *admin.Problem, lacks func(admin.AppPlan) bool) error {
	for n, portion := range portions(docs) {
		if !slices.ContainsFunc(plans[n].Plans, lacks) {
			continue
		}
		words.Documents, words.Expected = portion, expected(plans[n])
		_, err := c.sent(ctx, "/v1/apply", words)
		var refused *admin.Problem
		if err != nil && (!errors.As(err, &refused) || refused.Code != all.Code) {
			return err // such as that something has changed since it was planned
		}
		if refused != nil {
			all.RequestID = refused.RequestID
		}
		break
	}
	return all
}

// expected are the revisions that were planned, by app.
func expected(planned admin.Planned) map[string]string {
	revisions := make(map[string]string)
	for _, p := range planned.Plans {
		revisions[p.App] = p.Revision
	}
	return revisions
}

// together is one reply of several.
func together(replies []admin.Planned) admin.Planned {
	var all admin.Planned
	for _, reply := range replies {
		all.Plans = append(all.Plans, reply.Plans...)
		all.Warnings = append(all.Warnings, reply.Warnings...)
		all.Applied = all.Applied || reply.Applied
	}
	return all
}
