package pages

import (
	"net/http"
	"time"
)

// FieldUserCode is the code that a device shows, as a person typed it.
const FieldUserCode = "user_code"

// DeviceProblem says why the code of a device leads nowhere.
type DeviceProblem string

// Problems with the code of a device.
const (
	DeviceFine      DeviceProblem = ""
	DeviceMalformed DeviceProblem = "malformed" // no code looks like that
	DeviceUnknown   DeviceProblem = "unknown"   // mistyped, or gone
	DeviceUsed      DeviceProblem = "used"      // somebody has decided already
	DeviceExpired   DeviceProblem = "expired"
	DeviceTooMany   DeviceProblem = "too_many" // no guess is taken before RetryAfter, which is set
)

// DeviceProblems is all of them.
var DeviceProblems = []DeviceProblem{DeviceMalformed, DeviceUnknown, DeviceUsed, DeviceExpired, DeviceTooMany}

// Device asks for the code that a device shows.
type Device struct {
	Frame
	Action   string
	Hidden   []Field
	UserCode string // what stands in the field
	Problem  DeviceProblem

	RetryAfter time.Duration // with DeviceTooMany
}

func (Device) template() string            { return "device" }
func (p Device) retryAfter() time.Duration { return p.RetryAfter }
func (Device) forms() formPolicy           { return formsToHere }

// Status is the HTTP status that fits the problem.
func (p Device) Status() int {
	switch p.Problem {
	case DeviceFine:
		return http.StatusOK
	case DeviceTooMany:
		return http.StatusTooManyRequests
	}
	return http.StatusUnprocessableEntity
}

// ConfirmDevice asks a person whether a device that shows this code is theirs, and may have what it wants. There is no
// host to name here: whoever holds the device gets the access, so the page warns of those who send codes to others.
type ConfirmDevice struct {
	Frame
	App
	Person    // who is signed in
	UserCode  string
	Resources []Resource // as in [Consent]
	Scopes    []Scope
	Action    string
	Hidden    []Field
	Late      bool   // as in [Consent]
	Account   string // likewise

	// UnusedFor and AtMost are as in [Consent].
	UnusedFor, AtMost time.Duration
}

func (ConfirmDevice) template() string  { return "confirmdevice" }
func (p ConfirmDevice) app() app        { return p.view() }
func (ConfirmDevice) forms() formPolicy { return formsToHere }

// TellsAbout reports whether the app learns something about the person.
func (p ConfirmDevice) TellsAbout() bool { return tellAbout(p.Scopes...) }

// DeviceDone sends the person back to their device.
type DeviceDone struct {
	Frame
	App
	Approved bool
}

func (DeviceDone) template() string { return "devicedone" }
func (p DeviceDone) app() app       { return p.view() }
