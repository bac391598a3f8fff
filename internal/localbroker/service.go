package localbroker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/wholefile"
)

// managerWithin bounds one command of a service manager.
const managerWithin = 30 * time.Second

// Errors of a Service.
var (
	ErrNoService = errors.New("no service manager that claudemesh knows runs on this system; it knows systemd and launchd")
	ErrBadPath   = errors.New("a path with control characters cannot stand in a service's file")
)

// Service is the broker's entry at the service manager of the user: systemd or
// launchd. It is a file and the commands that tell the manager of it.
type Service struct {
	Manager string // systemd or launchd
	Name    string
	Path    string // of its file
	log     string // its file, "" for the journal

	probe, active, enable, start, disable, forgotten [][]string
	text                                             func(s *Service, command []string) string
}

// User is whose service manager it is.
type User struct {
	OS     string // as GOOS
	Home   string
	Config string // $XDG_CONFIG_HOME
	UID    int
}

// Service describes the broker's entry. That of the usual directory has the plain
// name, others one of their own. ErrNoService.
func (b *Broker) Service(u User) (*Service, error) {
	suffix := ""
	if b.dir != filepath.Join(u.Home, ".claudemesh", "broker") {
		sum := sha256.Sum256([]byte(b.dir))
		suffix = "-" + hex.EncodeToString(sum[:4])
	}
	switch u.OS {
	case "linux":
		config := u.Config
		if !filepath.IsAbs(config) {
			config = filepath.Join(u.Home, ".config")
		}
		name := Program + suffix + ".service"
		ctl := func(args ...string) []string { return append([]string{"systemctl", "--user"}, args...) }
		return &Service{
			Manager: "systemd", Name: name, Path: filepath.Join(config, "systemd", "user", name), text: unit,
			probe:     [][]string{ctl("show-environment")},
			active:    [][]string{ctl("is-enabled", "--quiet", name), ctl("is-active", "--quiet", name)},
			enable:    [][]string{ctl("daemon-reload"), ctl("enable", "--now", name)},
			start:     [][]string{ctl("daemon-reload"), ctl("start", name)},
			disable:   [][]string{ctl("disable", "--now", name)},
			forgotten: [][]string{ctl("daemon-reload")},
		}, nil
	case "darwin":
		name := "com.claudemesh.broker" + suffix
		domain := fmt.Sprintf("gui/%d", u.UID)
		path := filepath.Join(u.Home, "Library", "LaunchAgents", name+".plist")
		return &Service{
			Manager: "launchd", Name: name, Path: path, log: b.LogPath(), text: plist,
			probe:   [][]string{{"launchctl", "print", domain}},
			active:  [][]string{{"launchctl", "print", domain + "/" + name}},
			enable:  [][]string{{"launchctl", "bootstrap", domain, path}},
			start:   [][]string{{"launchctl", "kickstart", domain + "/" + name}},
			disable: [][]string{{"launchctl", "bootout", domain + "/" + name}},
		}, nil
	}
	return nil, ErrNoService
}

// Log is where the broker's log is: a file, or the command that shows it.
func (s *Service) Log() string {
	if s.log == "" {
		return "journalctl --user -u " + s.Name
	}
	return s.log
}

// Written reports whether the service's file is there.
func (s *Service) Written() bool {
	_, err := os.Stat(s.Path)
	return err == nil
}

// Answers reports whether the manager can be asked: in a container there is none.
func (s *Service) Answers(ctx context.Context) bool { return runAll(ctx, s.probe) == nil }

// Active reports whether the manager runs the service, now and after the next boot.
func (s *Service) Active(ctx context.Context) bool {
	return s.Written() && runAll(ctx, s.active) == nil
}

// EnableCommands are what makes the manager run the service now and at each start.
func (s *Service) EnableCommands() [][]string { return s.enable }

// Disable takes the service away, from the manager if it answers, and deletes its file.
func (s *Service) Disable(ctx context.Context) error {
	answers := s.Answers(ctx)
	if answers {
		_ = runAll(ctx, s.disable) // it may not know the service; without its file it forgets it
	}
	if err := os.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if answers {
		return runAll(ctx, s.forgotten)
	}
	return nil
}

// WriteService writes the file of a service.
func (b *Broker) WriteService(ctx context.Context, s *Service, program string) error {
	if err := b.prepare(); err != nil {
		return err
	}
	listen, err := b.listen(ctx)
	if err != nil {
		return err
	}
	command := b.command(program, listen)
	for _, arg := range append(command, s.Path, s.log) {
		if strings.ContainsFunc(arg, unicode.IsControl) {
			return fmt.Errorf("%w: %q", ErrBadPath, arg)
		}
	}
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o700); err != nil {
		return err
	}
	return wholefile.Replace(s.Path, []byte(s.text(s, command)))
}

// StartService has the manager run the service, whose file was written, and waits until
// the broker is ready. With enable it is run after each login or boot, too.
func (b *Broker) StartService(ctx context.Context, s *Service, enable bool) (brokerfile.Running, error) {
	commands := s.start
	if enable {
		commands = s.enable
	}
	if err := runAll(ctx, commands); err != nil {
		return brokerfile.Running{}, err
	}
	return b.Ready(ctx, nil)
}

func runAll(ctx context.Context, commands [][]string) error {
	ctx, cancel := context.WithTimeout(ctx, managerWithin)
	defer cancel()
	for _, c := range commands {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		cmd.WaitDelay = time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// unit is a systemd user unit. What needs a mount namespace is left out: a user's
// manager has none where the kernel forbids unprivileged ones.
func unit(_ *Service, command []string) string {
	quoted := make([]string, len(command))
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`)
	for i, arg := range command {
		quoted[i] = `"` + escape.Replace(arg) + `"`
	}
	return `# Written by claudemesh up --service; claudemesh down --service takes it away.
[Unit]
Description=claudemesh broker of this user, on loopback

[Service]
ExecStart=` + strings.Join(quoted, " ") + `
Restart=on-failure
RestartSec=2
TimeoutStopSec=15
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=default.target
`
}

// plist is a launchd agent.
func plist(s *Service, command []string) string {
	str := func(s string) string {
		var b strings.Builder
		b.WriteString("<string>")
		_ = xml.EscapeText(&b, []byte(s))
		return b.String() + "</string>"
	}
	var args strings.Builder
	for _, arg := range command {
		args.WriteString("\n    " + str(arg))
	}
	return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Written by claudemesh up -service; claudemesh down -service takes it away. -->
<plist version="1.0">
<dict>
  <key>Label</key>
  ` + str(s.Name) + `
  <key>ProgramArguments</key>
  <array>` + args.String() + `
  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict><key>SuccessfulExit</key><false/></dict>
  <key>Umask</key>
  <integer>63</integer>
  <key>StandardOutPath</key>
  ` + str(s.log) + `
  <key>StandardErrorPath</key>
  ` + str(s.log) + `
</dict>
</plist>
`
}
