package oauth

// Types of access tokens.
const (
	// AccessTokenRFC9068 is a JWT whose header says that it is an access token and nothing else (RFC 9068 section 2.1).
	AccessTokenRFC9068 = "at+jwt"
	// AccessTokenJWT is the same token, but its header says only that it is a JWT, for verifiers that refuse other types.
	AccessTokenJWT = "JWT"
	// AccessTokenOpaque is a string that only this server can read: it is introspected.
	AccessTokenOpaque = "opaque"
)

// AccessTokenTypes returns the types of access tokens; the first is the default.
func AccessTokenTypes() []string {
	return []string{AccessTokenRFC9068, AccessTokenJWT, AccessTokenOpaque}
}

// AccessTokenAlgs returns the algorithms with which access tokens are signed; the first is the default.
func AccessTokenAlgs() []string { return []string{AlgES256, AlgRS256, AlgPS256, AlgEdDSA} }
