package admin

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/warifu/warifu/storage"
)

// backupPatience is how long a backup may take: of several GiB, to a slow disk.
const backupPatience = 2 * time.Hour

func (a *operations) registerBackup(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "backup", Method: http.MethodPost, Path: "/v1/backup", Summary: "Make a backup of the records",
		Description: "Of an embedded database a snapshot of etcd; of a cluster the records of this server, encrypted. " +
			"Either ends with the SHA-256 of all before it. What is secret in it is sealed under the encryption key, " +
			"which is not in it.",
		Tags: []string{"records"}, Errors: []int{503},
		Responses: map[string]*huma.Response{"200": {
			Description: "The backup",
			Content: map[string]*huma.MediaType{
				"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}},
			},
		}},
	}, a.backup)
}

func (a *operations) backup(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
	whole, cancel := within(ctx, backupPatience)
	begun := context.AfterFunc(ctx, cancel) // beginning takes no longer than any other call may
	snapshot, err := a.Store.Backup(whole, storage.Exporting{Issuer: a.Issuer, Program: a.Version})
	if !begun() && err == nil {
		_ = snapshot.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
	}
	if err != nil {
		return nil, a.failed(ctx, "backup", err)
	}
	return &huma.StreamResponse{Body: func(to huma.Context) {
		defer cancel()
		defer func() { _ = snapshot.Close() }()
		_, w := humago.Unwrap(to)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(backupPatience)) // else the listener's stays
		to.SetHeader("Content-Type", "application/octet-stream")
		if _, err := io.Copy(w, snapshot); err != nil {
			if whole.Err() == nil {
				a.logFault(whole, "admin API", "backup", err)
			}
			panic(http.ErrAbortHandler) // so that the caller does not take it for a whole one
		}
	}}, nil
}
