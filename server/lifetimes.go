package server

import (
	"fmt"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Lifetimes are how long things last.
type Lifetimes struct {
	AccessToken time.Duration
	IDToken     time.Duration
	Code        time.Duration // at most 60 s is wise, RFC 6749 section 4.1.2
	AuthRequest time.Duration // from authorize until sign-in and consent are done
	DeviceCode  time.Duration // from a device's request until it has its tokens, RFC 8628 section 3.2
	Session     time.Duration // of a browser's sign-in
	// RefreshIdle ends a refresh token that is not used; RefreshAbsolute ends its family, used or not.
	RefreshIdle     time.Duration
	RefreshAbsolute time.Duration
	// RefreshReuse is how long a used refresh token gets the newest one of its chain again; 0 never. A client may say so
	// for itself.
	RefreshReuse time.Duration
	// SigningKeys and SealingKeys are how long a key signs or seals before the next one does. A change counts at once.
	SigningKeys time.Duration
	SealingKeys time.Duration
}

// DefaultLifetimes are what a configuration that says nothing gets.
func DefaultLifetimes() Lifetimes {
	const day = 24 * time.Hour
	return Lifetimes{
		AccessToken: time.Hour, IDToken: time.Hour, Code: time.Minute, AuthRequest: time.Hour, DeviceCode: 10 * time.Minute,
		Session:     day,
		RefreshIdle: 90 * day, RefreshAbsolute: 165 * day, SigningKeys: 30 * day, SealingKeys: 30 * day,
	}
}

// LifetimeError is one of the [Lifetimes] that cannot be as it is.
type LifetimeError struct {
	Field  string // of Lifetimes
	Reason string // completes the sentence "codes ..."
}

func (e *LifetimeError) Error() string { return "lifetime " + e.Field + " " + e.Reason }

const (
	minLife = time.Second
	// maxCode is what RFC 6749 section 4.1.2 recommends. It is far below the life of tombstones in storage, which a code
	// must not outlive either.
	maxCode = 10 * time.Minute
)

// Check finds everything that is wrong. A [Server] is only made of lifetimes with which nothing is.
func (l Lifetimes) Check() []LifetimeError {
	var wrong []LifetimeError
	refuse := func(field, format string, args ...any) {
		wrong = append(wrong, LifetimeError{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	for _, f := range []struct {
		field string
		life  time.Duration
	}{
		{"AccessToken", l.AccessToken}, {"IDToken", l.IDToken}, {"Code", l.Code}, {"AuthRequest", l.AuthRequest},
		{"DeviceCode", l.DeviceCode}, {"Session", l.Session}, {"RefreshIdle", l.RefreshIdle}, {"RefreshAbsolute",
			l.RefreshAbsolute},
		{"SigningKeys", l.SigningKeys}, {"SealingKeys", l.SealingKeys},
	} {
		if f.life < minLife {
			refuse(f.field, "must be %s or more, but is %s", minLife, f.life)
		}
	}
	for _, f := range []struct {
		field      string
		life, most time.Duration
		reason     string
	}{
		{"Code", l.Code, maxCode, "must be 10m or less (RFC 6749 section 4.1.2), but is %s"},
		{"DeviceCode", l.DeviceCode, storage.MaxDeviceLife, "must be 30m or less, but is %s"},
		{"RefreshReuse", l.RefreshReuse, oauth.MaxReuseInterval,
			"must be 1m or less, but is %s: for that long a stolen token is not noticed"},
	} {
		if f.life > f.most {
			refuse(f.field, f.reason, f.life)
		}
	}
	if l.RefreshAbsolute < minLife {
		return wrong
	}
	if l.Code > l.RefreshAbsolute {
		refuse("Code", "must not outlive the grant that a code is exchanged for, which ends after %s, but is %s",
			l.RefreshAbsolute, l.Code)
	}
	if l.DeviceCode > l.RefreshAbsolute {
		refuse("DeviceCode", "must not outlive the grant that a device gets for it, which ends after %s, but is %s",
			l.RefreshAbsolute, l.DeviceCode)
	}
	return wrong
}
