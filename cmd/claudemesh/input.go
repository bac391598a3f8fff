package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const day = 24 * time.Hour

// parseSpan reads a duration like 7d, 12h, 30m, 1d12h or 90s.
func parseSpan(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no duration; write it like 7d, 12h, 30m or 90s", s)
	var total time.Duration
	rest := s
	if days, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, bad
		}
		if total, rest = time.Duration(n)*day, after; rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-total || strings.ContainsAny(rest, "+-") {
		return 0, bad
	}
	return total + d, nil
}

// flagSpan is parseSpan for the value of a flag, within limits.
func flagSpan(flag, s string, least, most time.Duration) (time.Duration, error) {
	d, err := parseSpan(s)
	if err != nil {
		return 0, usagef("--%s: %s", flag, err).hinted("--" + flag + " 12h")
	}
	if d < least || d > most {
		return 0, usagef("--%s is from %s to %s, not %s", flag, render.Span(least), render.Span(most), s).hinted("--" + flag + " 12h")
	}
	return d, nil
}

// normalizeBroker makes a broker's socket URL of what people have: that URL,
// its https form, or a host.
func normalizeBroker(s string) (string, error) {
	s = strings.TrimSpace(s)
	bad := usagef("%q is no address of a broker", s).hinted("--broker wss://mesh.example.com/ws")
	if !strings.Contains(s, "://") {
		u, err := url.Parse("wss://" + s)
		if err != nil || u.Host == "" {
			return "", bad
		}
		s = u.String()
		if isLoopback(u.Hostname()) {
			s = "ws" + strings.TrimPrefix(s, "wss")
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", bad
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	case "ws", "wss":
	default:
		return "", bad
	}
	if u.Path = strings.TrimSuffix(u.Path, "/"); !strings.HasSuffix(u.Path, wire.PathWS) {
		u.Path += wire.PathWS
	}
	return u.String(), nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// defaultName makes a member's name of the user's at this machine.
func defaultName() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return sanitizeName(name[strings.LastIndexByte(name, '\\')+1:])
}

// sanitizeName turns any name into one that a mesh takes.
func sanitizeName(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	out := strings.Trim(b.String(), "._-")
	if out = strings.TrimRight(out[:min(len(out), 32)], "._-"); out == "" {
		return "me"
	}
	return out
}

// terminal returns the terminal on standard input, if it is one.
func (a *app) terminal() (fd int, ok bool) {
	f, isFile := a.in.(*os.File)
	if !isFile {
		return 0, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// columns is how wide a row of the output may be: the terminal's, or what any takes.
func (a *app) columns() int {
	if f, isFile := a.out.(*os.File); isFile {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return max(width, 20)
		}
	}
	return 2000
}

// input is standard input until ctx ends: an interrupt ends the wait for it.
func (a *app) input(ctx context.Context) io.Reader { return interruptible{ctx, a.in} }

type interruptible struct {
	ctx context.Context // a reader has no other way to hear of it
	r   io.Reader
}

// Read leaves behind, when ctx ends first, a read that the program's end ends.
func (i interruptible) Read(p []byte) (int, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		buf := make([]byte, len(p))
		n, err := i.r.Read(buf)
		done <- result{buf[:n], err}
	}()
	select {
	case r := <-done:
		return copy(p, r.data), r.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

// confirm asks yes or no on the terminal; no is the answer to anything else.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.errw, "%s [y/N] ", render.Line(question))
	line, err := bufio.NewReader(io.LimitReader(a.input(ctx), 1024)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes", nil
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}
}

// sure asks before what cannot be undone. Without a terminal it wants --yes.
func (a *app) sure(ctx context.Context, yes bool, question string) error {
	return a.ask(ctx, yes, "this cannot be undone, and there is no terminal to ask on", question)
}

// ask lets go on after a yes; without a terminal it refuses with the reason.
func (a *app) ask(ctx context.Context, yes bool, reason, question string) error {
	if yes {
		return nil
	}
	if _, ok := a.terminal(); !ok {
		return usagef("%s", reason).hinted("say --yes")
	}
	ok, err := a.confirm(ctx, question)
	if err != nil {
		return err
	}
	if !ok {
		return &failure{code: "declined", exit: exitFailed, text: "nothing was done"}
	}
	return nil
}

// secret asks for a secret on the terminal, without echo.
func (a *app) secret(ctx context.Context, prompt string, fd int) (string, error) {
	state, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(a.errw, prompt)
	var raw []byte
	done := make(chan error, 1)
	go func() {
		var err error
		raw, err = term.ReadPassword(fd)
		done <- err
	}()
	select {
	case err = <-done:
		fmt.Fprintln(a.errw)
		return strings.TrimSpace(string(raw)), err
	case <-ctx.Done():
		fmt.Fprintln(a.errw)
		return "", errors.Join(ctx.Err(), term.Restore(fd, state))
	}
}

// readMessage reads a message from standard input, without the line break at its end.
func readMessage(in io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(in, wire.MaxBodyBytes+3))
	if err != nil {
		return "", fmt.Errorf("read the message: %w", err)
	}
	raw = bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	if len(raw) > wire.MaxBodyBytes {
		return "", wire.Faultf(wire.CodeTooLarge, "a message holds at most 32 KiB, and there is more on standard input")
	}
	return string(raw), nil
}

// checkMessage refuses what would not arrive as it was written.
func checkMessage(s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return usagef("the message is empty")
	case !utf8.ValidString(s):
		return usagef("the message is not UTF-8 text").hinted("encode binary data, or send the path of a file")
	case len(s) > wire.MaxBodyBytes:
		return wire.Faultf(wire.CodeTooLarge, fmt.Sprintf("a message holds at most 32 KiB, this one has %d bytes", len(s)))
	}
	return nil
}

// readLine reads a link from standard input.
func readLine(in io.Reader) (string, error) {
	line, ok, err := firstLine(in)
	if err == nil && !ok {
		err = usagef("standard input holds no link").hinted("claudemesh invite | claudemesh join -")
	}
	return line, err
}

// firstLine reads the first line of standard input that holds anything, if one does.
func firstLine(in io.Reader) (line string, ok bool, err error) {
	s := bufio.NewScanner(io.LimitReader(in, 64<<10))
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			return line, true, nil
		}
	}
	if err := s.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return "", false, fmt.Errorf("read standard input: %w", err)
	}
	return "", false, nil
}

// nearest returns the name that word is a slip of, or "".
func nearest(word string, names []string) string {
	best, at := "", 3
	for _, n := range names {
		if d := distance(word, n); d < at && d < max(len(word), 2) {
			best, at = n, d
		}
	}
	return best
}

// distance is Levenshtein's, with a swap of neighbours as one step.
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
