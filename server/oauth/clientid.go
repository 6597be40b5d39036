package oauth

import "regexp"

// MaxClientID bounds a client id that an operator chooses, in bytes.
const MaxClientID = 128

// ClientIDPattern is what such an id looks like. All of it reads the same in a form, in a query and in the user name of
// Basic, also where a client forgets to encode it (RFC 6749 section 2.3.1); none of it is the address of a client ID
// metadata document.
const ClientIDPattern = `^[A-Za-z0-9][A-Za-z0-9._~@_-]*$`

var clientID = regexp.MustCompile(ClientIDPattern)

// ValidClientID reports whether an operator may choose a client id.
func ValidClientID(id string) bool { return len(id) <= MaxClientID && clientID.MatchString(id) }

// AppNamePattern is what the name of an app looks like: a label of RFC 1123 section 2.1.
const AppNamePattern = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`

var appName = regexp.MustCompile(AppNamePattern)

// ValidAppName reports whether an app can have a name.
func ValidAppName(name string) bool { return appName.MatchString(name) }
