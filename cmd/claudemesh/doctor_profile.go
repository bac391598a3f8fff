package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/version"
)

// checkBinary compares this program with the one that a shell would start.
func (a *app) checkBinary() finding {
	self, err := os.Executable()
	if err != nil {
		return wrong("program", err)
	}
	found := ok("program", "claudemesh %s (%s/%s) at %s", version.String(), runtime.GOOS, runtime.GOARCH, self)
	path, err := exec.LookPath("claudemesh")
	switch {
	case err != nil:
		found.Verdict, found.Mend = warning, "put "+filepath.Dir(self)+" on PATH, so that the shell finds it"
	case !sameFile(path, self):
		found.Verdict, found.Mend = warning, "PATH has another one first: "+path
	}
	return found
}

// checkProfile looks at the directory, the mailbox, the meshes and the sessions.
func (a *app) checkProfile(ctx context.Context) (found []finding) {
	p, err := a.profile()
	if err != nil {
		return []finding{wrong("files", err)}
	}
	found = append(found, checkModes(p.Dir()))
	switch err := mailbox.Check(ctx, p.MailboxPath()); {
	case errors.Is(err, fs.ErrNotExist):
		found = append(found, ok("mailbox", "there is none yet; it is made when a mesh is joined"))
	case err != nil:
		return append(found, wrong("mailbox", err)) // nothing more can be said
	default:
		found = append(found, ok("mailbox", "intact"))
	}
	found = append(found, checkKeys(p)...)
	meshes, err := p.Meshes()
	if err != nil {
		return append(found, wrong("meshes", err))
	}
	if len(meshes) == 0 {
		return append(found, finding{"meshes", warning, "no mesh was joined here", joinHint})
	}
	s, err := a.connect(ctx, p, meshes, client.Observer)
	if err != nil {
		return append(found, wrong("meshes", err))
	}
	defer s.end(ctx)
	for i, m := range meshes {
		found = append(found, a.checkMesh(ctx, p, s, i, m)...)
	}
	return append(found, checkAgents(ctx, s.box)...)
}

// checkKeys says where the keys are, and nags while a backup lacks some.
func checkKeys(p *profile.Profile) (found []finding) {
	meshes, err := p.Entries()
	if err != nil || len(meshes) == 0 {
		return nil // it is said of the meshes
	}
	var inKeyring []string
	for _, e := range meshes {
		if e.Keyring != nil {
			inKeyring = append(inKeyring, e.Mesh)
		}
	}
	switch {
	case len(inKeyring) == 0:
		found = append(found, ok("keys", "in %s", filepath.Join(p.Dir(), "config.json")))
	case len(inKeyring) == len(meshes):
		found = append(found, ok("keys", "in the keyring of the operating system"))
	default:
		found = append(found, ok("keys", "in %s; of %s in the keyring of the operating system", filepath.Join(p.Dir(), "config.json"), strings.Join(inKeyring, ", ")))
	}
	return append(found, checkBackup(p, meshes))
}

// checkBackup compares what is here with what the last backup held.
func checkBackup(p *profile.Profile, meshes []profile.Entry) finding {
	const mend = "claudemesh backup FILE"
	last, err := p.LastBackup()
	if err != nil {
		return wrong("backup", err)
	}
	members, owners := last.Missing(meshes)
	made := time.UnixMilli(last.Made).Local().Format("2006-01-02 15:04")
	switch {
	case len(owners) > 0:
		return finding{"backup", warning, "the owner key of " + strings.Join(owners, ", ") + " is in no backup: nobody could restore it", mend}
	case last.Made == 0:
		return ok("backup", "none was made; lost keys would need a new invite")
	case len(members) > 0:
		return finding{"backup", warning, "that of " + made + " lacks the keys of " + strings.Join(members, ", "), mend}
	}
	return ok("backup", "that of %s holds every key", made)
}

// checkModes looks for files that other users can read.
func checkModes(dir string) finding {
	if runtime.GOOS == "windows" { // access is a matter of ACLs there
		return ok("files", "in %s", dir)
	}
	var open []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&(fs.ModeSymlink|fs.ModeSocket) != 0 {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // gone meanwhile
			return nil
		}
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			open = append(open, path)
		}
		return err
	})
	switch {
	case err != nil:
		return wrong("files", err)
	case len(open) > 0:
		return finding{"files", broken, fmt.Sprintf("other users can access %s in %s, the first is %s", plural(len(open), "file"), dir, open[0]),
			"chmod -R go= '" + dir + "'"}
	}
	return ok("files", "in %s, open to you alone", dir)
}

func (a *app) checkMesh(ctx context.Context, p *profile.Profile, s *station, i int, m client.Membership) (found []finding) {
	st, err := a.statusOf(ctx, p, s, i, m)
	switch {
	case err != nil:
		return []finding{wrong(m.Mesh, err)}
	case s.errs[i] != nil:
		found = append(found, wrong(m.Mesh, s.errs[i]))
		if st.Local != nil && !st.Local.Running {
			found[0].Mend = "claudemesh up"
		}
	default:
		found = append(found, ok(m.Mesh, "%s is online at %s, whose key is the one of the invite", m.Member, m.Broker))
	}
	if st.caught != "" {
		found = append(found, finding{m.Mesh, broken, "the broker shows what does not hold, and nothing of it was taken: " + st.caught,
			"ask who runs the broker; docs/security.md lists what each means"})
	}
	if off := time.Duration(st.ClockOffsetMs) * time.Millisecond; off.Abs() > clockSlack {
		found = append(found, finding{"clock", broken, "this machine's clock is " + skew(off), "set the clock: timedatectl set-ntp true, or the system's settings"})
	}
	if st.Queued > 0 && s.errs[i] != nil {
		found = append(found, finding{m.Mesh, warning, plural(st.Queued, "message") + " waits here for the broker", "nothing: they go out when it is back"})
	}
	return found
}
