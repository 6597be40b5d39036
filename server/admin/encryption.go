package admin

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// Encryption is what is known of the keys that seal secrets in storage.
type Encryption struct {
	Keys     []EncryptionKey       `json:"keys" nullable:"false" doc:"Those of the replica that answers, newest first."`
	Former   []FormerEncryptionKey `json:"former" nullable:"false" doc:"Keys that have sealed before, newest first."`
	Complete time.Time             `json:"complete,omitzero" doc:"When it was found that nothing is sealed under another key than the newest: the others may go. Left out while that is not so."`
	OwnFile  string                `json:"ownFile,omitempty" doc:"The file of the keys, if the server keeps it itself. Left out with encryptionKeyFiles."`
	Phase    string                `json:"phase,omitempty" enum:"waiting,resealing,verifying" doc:"What this replica does. waiting: for replicas. resealing: records are moved to the newest key. verifying: all are looked at once more."`
	Waiting  []string              `json:"waiting" nullable:"false" doc:"The replicas that do not have the newest key first in their list, or do not seal under it yet."`
	Resealed int                   `json:"resealed" doc:"How many records this replica has moved."`
	Fault    string                `json:"fault,omitempty" doc:"Why it could not go on; it tries again."`
}

// EncryptionKey is one of them.
type EncryptionKey struct {
	Fingerprint string    `json:"fingerprint" doc:"The first 8 bytes of the key's SHA-256."`
	Seals       bool      `json:"seals" doc:"Whether secrets are sealed under it now. The others open what still is under them."`
	Since       time.Time `json:"since,omitzero" doc:"When it began to seal."`
}

// FormerEncryptionKey is a key that backups from before need.
type FormerEncryptionKey struct {
	Fingerprint string    `json:"fingerprint"`
	Until       time.Time `json:"until" doc:"When it stopped sealing."`
}

func (a *operations) registerEncryption(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "encryption", Method: http.MethodGet, Path: "/v1/encryption",
		Summary: "Say which encryption keys there are, and how far resealing has come",
		Tags:    []string{"keys"}, Errors: []int{503},
	}, a.encryption)
	huma.Register(api, huma.Operation{
		OperationID: "rotate-encryption", Method: http.MethodPost, Path: "/v1/encryption/rotate",
		Summary: "Replace the encryption key",
		Description: "With a new one, if the server keeps the key itself, or with the one that was put in front of " +
			"encryptionKeyFiles: as soon as all replicas have it, everything is sealed under it.",
		Tags: []string{"keys"}, Errors: []int{400, 409, 422, 503},
	}, a.rotateEncryption)
}

func (a *operations) encryption(ctx context.Context, _ *struct{}) (*reply[Encryption], error) {
	e, err := a.Store.Encryption(ctx)
	if err != nil {
		return nil, a.failed(ctx, "encryption keys", err)
	}
	out := Encryption{Keys: []EncryptionKey{}, Former: []FormerEncryptionKey{}, Complete: e.Complete, OwnFile: e.Own,
		Phase: e.Phase, Waiting: listed(e.Waiting), Resealed: e.Resealed}
	for _, k := range e.Keys {
		out.Keys = append(out.Keys, EncryptionKey{Fingerprint: k.Fingerprint, Seals: k.Seals, Since: k.Since})
	}
	for _, f := range e.Former {
		out.Former = append(out.Former, FormerEncryptionKey{Fingerprint: f.Fingerprint, Until: f.Until})
	}
	if e.Fault != "" { // what it names are records and fingerprints, but the log is where faults are
		out.Fault = "resealing has failed and is tried again; the server's log says why"
	}
	return &reply[Encryption]{out}, nil
}

type rotateEncryptionInput struct {
	Body struct {
		Now bool `json:"now,omitempty" doc:"Rotate even within an hour of the last rotation; otherwise the reply says how that one ended."`
	}
}

func (a *operations) rotateEncryption(ctx context.Context, in *rotateEncryptionInput) (*reply[Encryption], error) {
	err := a.Store.RotateEncryption(ctx, in.Body.Now)
	if errors.Is(err, storage.ErrNoNewKey) {
		return nil, problem(http.StatusConflict, codeNoNewKey,
			"Everything is sealed under the newest key of encryptionKeyFiles, and the server does not make keys for that list.",
			"Make a key, (umask 077; openssl rand -base64 32 > FILE), put FILE first in encryptionKeyFiles of every "+
				"replica and leave "+
				"the others behind it, have each take it (warifu reload, or a restart), and run this again.")
	}
	if errors.Is(err, storage.ErrKeyFile) {
		a.logFault(ctx, "admin API", "encryption keys", err)
		return nil, problem(http.StatusServiceUnavailable, codeKeyFile,
			"The server cannot write the file of its encryption key: "+whyUnwritten(err)+". The key is the same as before.",
			"Make room in dataDir, or let the server write there, and run this again.")
	}
	if err != nil {
		return nil, a.failed(ctx, "encryption keys", err)
	}
	return a.encryption(ctx, nil)
}

// whyUnwritten is what the system says of a file, without the name under which it was tried.
func whyUnwritten(err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number.Error()
	}
	return "see its log"
}
