package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
)

// waiting is three messages in the plainest form: a direct that waits, 1, a group
// message of two of which one waits, 2 and 3, and a delivered direct, 4.
const waiting = `
	INSERT INTO mesh (mesh_id, owner, name, genesis_body, genesis_sig, created, members_version, generation, queued, queued_bytes)
		SELECT decode(repeat('aa', 16), 'hex'), decode(repeat('bb', 32), 'hex'), 'mesh', '', decode(repeat('cc', 64), 'hex'), 1, 1, 1, 2, 64;
	INSERT INTO peer (mesh, pubkey, member) SELECT 1, decode(repeat('dd', 32), 'hex'), decode(repeat('bb', 32), 'hex');
	INSERT INTO message (seq, mesh, sender, id, hash, mode, recipients, created, expires)
		SELECT n, 1, 1, decode(repeat('0' || n, 16), 'hex'), decode(repeat('ee', 32), 'hex'), n, CASE n WHEN 2 THEN 2 ELSE 1 END, 1, 9
		FROM unnest(ARRAY[1, 2, 4]) AS m (n);
	INSERT INTO body (seq, nonce, ciphertext) SELECT n, decode(repeat('ff', 24), 'hex'), 'sealed!!' FROM generate_series(1, 2) AS b (n);
	INSERT INTO delivery (id, message, recipient, expires, at, size, priority) SELECT n, n, 1, 9, 1, 32, 1 FROM generate_series(1, 2) AS d (n);
	INSERT INTO outcome (id, message, recipient, at, epoch, size, state) VALUES (3, 2, 1, 2, 0, 32, 1), (4, 4, 1, 2, 0, 32, 1);
	SELECT setval('delivery_number', 4);`

func TestCheck(t *testing.T) {
	edit := func(url, sql string) {
		t.Helper()
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	whole := pgtest.Database(t)
	edit(whole, waiting)
	if err := postgres.Check(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]string{
		"UPDATE mesh SET queued = 3":                                             "counters of mesh aaaa",
		"UPDATE mesh SET queued_bytes = 3":                                       "counters of mesh aaaa",
		"DELETE FROM body WHERE seq = 2":                                         "message 2 has no body",
		"INSERT INTO body (seq, nonce, ciphertext) VALUES (4, '', '')":           "body 4 is of no queued delivery",
		"DELETE FROM message WHERE seq = 1":                                      "delivery 1 has no message",
		"DELETE FROM message WHERE seq = 4":                                      "delivery 4 has no message",
		"UPDATE outcome SET id = 2 WHERE id = 3":                                 "delivery 2 is queued and settled",
		"UPDATE outcome SET message = 1 WHERE id = 4":                            "delivery 4 is not among those of message 1",
		"DELETE FROM outcome WHERE id = 3":                                       "message 2 has 1 deliveries of 2",
		"UPDATE delivery SET expires = 8 WHERE id = 1":                           "delivery 1 does not expire",
		"UPDATE message SET mesh = 7 WHERE seq = 4":                              "message 4 is of no mesh",
		"UPDATE delivery SET recipient = 7 WHERE id = 1":                         "delivery 1 is for no peer",
		"SELECT setval('delivery_number', 3)":                                    "next delivery number, 4,",
		"DELETE FROM outcome WHERE id = 4; SELECT setval('delivery_number', 3);": "message 4 has 0 deliveries",
	} {
		url := pgtest.Shared(t).Snapshot(t, whole)
		edit(url, sql)
		if err := postgres.Check(t.Context(), url); !errors.Is(err, postgres.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestResetToken(t *testing.T) {
	if err := postgres.ResetToken(t.Context(), pgtest.Shared(t).Blank(t), [32]byte{9}); !errors.Is(err, postgres.ErrNoSchema) {
		t.Errorf("without a schema: %v", err)
	}
	url := pgtest.Database(t)
	if err := postgres.ResetToken(t.Context(), url, [32]byte{9}); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("before the first start: %v", err)
	}
	s := open(t, url)
	want := broker.BrokerIdentity{Seed: [32]byte{1}, TokenHash: [32]byte{2}, Created: time.UnixMilli(5).UTC()}
	if _, _, err := s.Identity(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := postgres.ResetToken(t.Context(), url, [32]byte{9}); err != nil {
		t.Fatal(err)
	}
	want.TokenHash = [32]byte{9}
	if got, created, err := s.Identity(t.Context(), broker.BrokerIdentity{}); err != nil || created || got != want {
		t.Errorf("identity %+v, %v, %v", got, created, err)
	}
}

// Tools refuse a schema that is not theirs.
func TestToolsVersion(t *testing.T) {
	for version, want := range map[int]error{999: postgres.ErrNewer, 0: postgres.ErrNoSchema} {
		url := pgtest.Database(t)
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Exec(t.Context(), fmt.Sprintf("DELETE FROM schema_version; INSERT INTO schema_version (version_id, is_applied) VALUES (%d, true)", version))
		if err := errors.Join(err, c.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		if err := postgres.Check(t.Context(), url); !errors.Is(err, want) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}
