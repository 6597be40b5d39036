package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

func (c *cli) hash() *cobra.Command {
	return &cobra.Command{
		Use: "hash", Short: "Hash a password for staticPasswords",
		Long: `hash reads a password, on a terminal without showing it, or else from stdin, and prints its bcrypt hash: the
value of hash, or the content of hashFile, in staticPasswords of the configuration.`,
		Example: `  warifu hash
  warifu hash < password.txt > ann.hash`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			password, err := c.newPassword(cmd.Context())
			if err != nil {
				return err
			}
			hash, err := hashOf(password)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.stdout, hash)
			return err
		},
	}
}

// hashOf is the hash of a password, for a configuration.
func hashOf(password string) (string, error) {
	switch {
	case password == "":
		return "", usagef("the password is empty")
	case strings.ContainsAny(password, "\r\n\x00"):
		return "", usagef("the password must be one line, which is what a sign-in page sends")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", usagef("the password has %d bytes, and bcrypt takes at most 72", len(password))
	}
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return string(hash), nil
}

// newPassword reads a password that somebody chooses: twice where they cannot see what they type.
func (c *cli) newPassword(ctx context.Context) (string, error) {
	if !isTerminal(c.stdin) {
		return c.readPassword()
	}
	first, err := c.askSecret(ctx, "Password: ")
	if err != nil {
		return "", err
	}
	second, err := c.askSecret(ctx, "Again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", usagef("the two passwords differ")
	}
	return first, nil
}

// askSecret reads a line from the terminal without showing it. When ctx ends, the terminal is as it was before.
func (c *cli) askSecret(ctx context.Context, prompt string) (string, error) {
	fd := int(c.stdin.(*os.File).Fd()) // isTerminal
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	_, _ = fmt.Fprint(c.stderr, prompt)
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() { // ends with the line, or with the process
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		_ = term.Restore(fd, before) // there is nothing else to be done
		c.say("")
		return "", errors.New("interrupted")
	case got := <-read:
		c.say("") // in place of the line end that was not shown
		if got.err != nil {
			return "", fmt.Errorf("read from the terminal: %w", got.err)
		}
		return string(got.text), nil
	}
}
