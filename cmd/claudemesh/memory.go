package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/backup"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// memory is what a backup holds of the mailbox, by mesh: what must not be forgotten
// with a machine. A further kind of knowledge gets its field here, is read in
// recollect and saved in remind.
type memory struct {
	Version    int64               `json:"version"` // of the members
	Statements []mailbox.Statement `json:"statements"`
	Keys       []meshKey           `json:"keys"`
	Trusts     []granted           `json:"trusts"`
}

// granted is what a member may do here, and whether it was verified.
type granted struct {
	Member   client.Key      `json:"member"`
	Level    mailbox.Level   `json:"level"`
	Grants   []mailbox.Grant `json:"grants"`
	Blocked  bool            `json:"blocked"`
	Verified int64           `json:"verified"` // Unix ms
	Changed  int64           `json:"changed"`  // Unix ms
}

// remind saves it, unless the mailbox has a newer word.
func (g granted) remind(ctx context.Context, box mailbox.Mailbox, mesh client.ID) error {
	have, err := box.Trust(ctx, mesh, g.Member)
	if err != nil || have.Changed >= g.Changed {
		return err
	}
	_, err = box.ChangeTrust(ctx, mesh, g.Member, g.Changed, func(t *mailbox.Trust) error {
		t.Level, t.Grants, t.Blocked, t.Verified = g.Level, g.Grants, g.Blocked, g.Verified
		return nil
	})
	return err
}

// meshKey is one mesh key.
type meshKey struct {
	Generation uint64        `json:"generation"`
	Key        client.Secret `json:"key"`
}

// memoryDir holds a file for each mesh in a backup.
const memoryDir = "mailbox/"

// recollect reads the memory of a mesh out of the mailbox.
func recollect(ctx context.Context, box mailbox.Mailbox, mesh client.ID) (m memory, err error) {
	if m.Version, m.Statements, err = box.Statements(ctx, mesh); err != nil {
		return m, err
	}
	keys, err := box.Keys(ctx, mesh)
	for generation, key := range keys {
		m.Keys = append(m.Keys, meshKey{generation, key})
	}
	if err != nil {
		return m, err
	}
	trusts, err := box.Trusts(ctx, mesh)
	for _, t := range trusts {
		m.Trusts = append(m.Trusts, granted{t.Member, t.Level, t.Grants, t.Blocked, t.Verified, t.Changed})
	}
	return m, err
}

// remind saves it into a mailbox, which may know more already and forgets nothing.
func (m memory) remind(ctx context.Context, box mailbox.Mailbox, mesh client.ID) error {
	if _, err := box.SaveStatements(ctx, mesh, m.Version, m.Statements); err != nil {
		return err
	}
	for _, t := range m.Trusts {
		if err := t.remind(ctx, box, mesh); err != nil {
			return err
		}
	}
	for _, k := range m.Keys {
		if err := box.SaveKey(ctx, mesh, k.Generation, k.Key); err != nil {
			return err
		}
	}
	return nil
}

// memories are the entries of a backup for some meshes; none where there is no mailbox yet.
func memories(ctx context.Context, path string, meshes []client.Membership) (entries []backup.Entry, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	box, err := client.OpenMailbox(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	for _, mesh := range meshes {
		m, err := recollect(ctx, box, mesh.MeshID)
		if err != nil {
			return nil, err
		}
		data, err := wire.Marshal(m)
		if err != nil {
			return nil, err
		}
		entries = append(entries, backup.Entry{Name: memoryDir + mesh.MeshID.String() + ".json", Mode: 0o600, Data: data})
	}
	return entries, nil
}

// parseMemories reads them out of a backup.
func parseMemories(a backup.Archive) (map[client.ID]memory, error) {
	found := map[client.ID]memory{}
	for _, e := range a.Entries {
		name, ok := strings.CutPrefix(e.Name, memoryDir)
		if !ok {
			continue
		}
		var id client.ID
		if err := id.UnmarshalText([]byte(strings.TrimSuffix(name, ".json"))); err != nil {
			return nil, fmt.Errorf("%s of the backup: %w", e.Name, err)
		}
		var m memory
		if err := wire.Unmarshal(e.Data, &m); err != nil {
			return nil, fmt.Errorf("%s of the backup: %w", e.Name, err)
		}
		found[id] = m
	}
	return found, nil
}
