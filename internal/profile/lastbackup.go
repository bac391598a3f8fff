package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/wholefile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	backupName    = "backup.json"
	backupVersion = 1
)

// LastBackup is what is remembered of the last backup: which keys it holds.
type LastBackup struct {
	Version int        `json:"version"`
	Made    int64      `json:"made"` // Unix ms
	Members []wire.Key `json:"members"`
	Owners  []wire.Key `json:"owners"`
}

// RememberBackup notes that a backup of these meshes was made.
func (p *Profile) RememberBackup(s Snapshot, made time.Time) error {
	b := LastBackup{Version: backupVersion, Made: made.UnixMilli()}
	for _, m := range s.Meshes {
		b.Members = append(b.Members, m.MemberKey())
		if !m.OwnerSeed.IsZero() {
			b.Owners = append(b.Owners, m.Owner)
		}
	}
	data, err := wire.Marshal(b)
	if err != nil {
		return err
	}
	return wholefile.Replace(filepath.Join(p.dir, backupName), data)
}

// LastBackup returns what RememberBackup noted last; zero if nothing was.
func (p *Profile) LastBackup() (b LastBackup, err error) {
	path := filepath.Join(p.dir, backupName)
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	if err := parseVersion(data, backupVersion); err != nil {
		return b, fmt.Errorf("%s: %w", path, err)
	}
	if err := wire.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("%s: %w: %w", path, ErrMalformed, err)
	}
	return b, nil
}

// Missing returns the meshes whose keys the backup lacks, and of these the ones whose
// owner key is kept here and nowhere else.
func (b LastBackup) Missing(meshes []Entry) (members, owners []string) {
	for _, m := range meshes {
		if !slices.Contains(b.Members, m.MemberKey()) {
			members = append(members, m.Mesh)
		}
		if m.Owns() && !slices.Contains(b.Owners, m.Owner) {
			owners = append(owners, m.Mesh)
		}
	}
	return members, owners
}
