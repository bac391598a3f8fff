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
	return m, err
}

// remind saves it into a mailbox, which may know more already and forgets nothing.
func (m memory) remind(ctx context.Context, box mailbox.Mailbox, mesh client.ID) error {
	if err := box.SaveStatements(ctx, mesh, m.Version, m.Statements); err != nil {
		return err
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
