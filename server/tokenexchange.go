package server

// actor is who acts for the subject of a token, and who acted before (RFC 8693 section 4.1).
type actor struct {
	Subject string `json:"sub"`
	Actor   *actor `json:"act,omitempty"`
}
