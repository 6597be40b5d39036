package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// device is an app on a device that shows a code (RFC 8628).
type device struct {
	*authorization
	wait func(ctx context.Context, d time.Duration) error
}

// asked is the reply to a device authorization request (RFC 8628 section 3.2).
type asked struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	Address    string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	Interval   int    `json:"interval"` // seconds
}

// deviceTokens shows the code, waits for the user's decision, and returns the token response as it came. With a login
// it walks the pages itself.
func (c *cli) deviceTokens(ctx context.Context, d device, scopes []string, opts tokenOptions) ([]byte, error) {
	if d.deviceAt == "" {
		return nil, errors.New("this server does not offer the device grant: add " + oauth.GrantDeviceCode +
			" to oauth2.grantTypes of its configuration")
	}
	shown, err := d.ask(ctx, scopes)
	if err != nil {
		return nil, err
	}
	if opts.login != "" {
		password, err := c.readPassword()
		if err != nil {
			return nil, err
		}
		if _, err := d.walk(ctx, shown.Complete, opts.login, password); err != nil {
			return nil, err
		}
		return d.poll(ctx, shown)
	}
	c.say("On a device with a browser, open\n\n  %s\n\nand enter the code\n\n  %s\n", harmless(shown.Address),
		harmless(shown.UserCode))
	if code, err := qr.Encode(shown.Complete, qr.L); err == nil { // the address is short
		c.say("Or scan this:\n\n%s", c.drawn(code))
	}
	if err := d.wait(ctx, shown.interval()); err != nil {
		return nil, err
	}
	return d.poll(ctx, shown)
}

func (a asked) interval() time.Duration {
	if a.Interval <= 0 {
		return 5 * time.Second
	}
	return time.Duration(a.Interval) * time.Second
}

// ask makes the device authorization request.
func (d device) ask(ctx context.Context, scopes []string) (asked, error) {
	const what = "ask for a code"
	var shown asked
	status, body, err := d.post(ctx, what, d.deviceAt, url.Values{"scope": {strings.Join(scopes, " ")}})
	if err != nil {
		return shown, err
	}
	if status != http.StatusOK {
		return shown, d.refused(refusalIn(body))
	}
	if err := json.Unmarshal(body, &shown); err != nil || shown.DeviceCode == "" || shown.UserCode == "" {
		return shown, fmt.Errorf("%s: the server's response has none", what)
	}
	return shown, nil
}

// poll asks for tokens until the user has decided (RFC 8628 sections 3.4 and 3.5).
func (d device) poll(ctx context.Context, shown asked) ([]byte, error) {
	for interval := shown.interval(); ; {
		status, body, err := d.post(ctx, "ask for tokens", d.tokenAt, url.Values{
			"grant_type": {oauth.GrantDeviceCode}, "device_code": {shown.DeviceCode}})
		if err != nil {
			return nil, err
		}
		if status == http.StatusOK {
			return body, nil
		}
		switch refusalIn(body).Code {
		case "authorization_pending":
		case "slow_down":
			interval += 5 * time.Second
		default:
			return nil, d.refused(refusalIn(body))
		}
		if err := d.wait(ctx, interval); err != nil {
			return nil, err
		}
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if storage.Pause(ctx, d); ctx.Err() != nil {
		return errors.New("interrupted before anyone decided")
	}
	return nil
}

// quiet is the width, in modules, of the margin that a QR code needs.
const quiet = 4

// drawn is a QR code in characters of two modules each, one above the other. On a terminal that has colours it is
// black on white, as cameras expect it; elsewhere light is what is printed, as most terminals are dark.
func (c *cli) drawn(code *qr.Code) string {
	var out strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		var line strings.Builder
		for x := -quiet; x < code.Size+quiet; x++ {
			upper, lower := !code.Black(x, y), !code.Black(x, y+1) // light; what is outside is
			switch {
			case upper && lower:
				line.WriteRune('█')
			case upper:
				line.WriteRune('▀')
			case lower:
				line.WriteRune('▄')
			default:
				line.WriteRune(' ')
			}
		}
		out.WriteString(c.paint(c.stderr, color("97;40"), line.String()) + "\n")
	}
	return out.String()
}
