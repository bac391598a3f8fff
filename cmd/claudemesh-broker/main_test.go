package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// The test binary is the broker when it is asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("BROKER_MAIN") != "" {
		main()
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// tool runs one command to its end.
func tool(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var stdout, stderr buffer
	code = run(ctx, append([]string{"claudemesh-broker"}, args...), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// served is a broker that runs in this process.
type served struct {
	t      *testing.T
	out    buffer
	errs   buffer
	cancel context.CancelFunc
	code   chan int
	url    string // ws://HOST/ws
}

var listening = regexp.MustCompile(`listening on (\S+)`)

func start(t *testing.T, args ...string) *served {
	t.Helper()
	s := &served{t: t, code: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		s.code <- run(ctx, append([]string{"claudemesh-broker", "--listen", "127.0.0.1:0"}, args...), &s.out, &s.errs)
	}()
	t.Cleanup(func() { s.stop() })
	for range 6000 { // a disk may stand still for a while
		if m := listening.FindStringSubmatch(s.out.String()); m != nil {
			s.url = m[1]
			return s
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the broker does not listen: %s", s.errs.String())
	return nil
}

// stop ends it as a signal would and returns its exit code.
func (s *served) stop() int {
	s.cancel()
	select {
	case c := <-s.code:
		s.code <- c
		return c
	case <-time.After(10 * time.Second):
		s.t.Fatal("the broker does not stop")
		return -1
	}
}

func (s *served) found(token string) error {
	_, err := client.Found(s.t.Context(), s.url, token, "acme", "alice")
	return err
}

var tokenPattern = regexp.MustCompile(`(?m)^    ([A-Z2-7]{20,})$`)

func TestFirstStart(t *testing.T) {
	db := filepath.Join(t.TempDir(), "mesh.db")
	s := start(t, "--db", db)
	m := tokenPattern.FindStringSubmatch(s.out.String())
	if m == nil || !strings.Contains(s.out.String(), "claudemesh new acme --broker "+s.url) {
		t.Fatalf("first start: %s", s.out.String())
	}
	token := m[1]
	if strings.Contains(s.errs.String(), token) {
		t.Error("the token is in the log")
	}
	files, _ := filepath.Glob(db + "*")
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
		if raw, _ := os.ReadFile(f); bytes.Contains(raw, []byte(token)) {
			t.Errorf("%s holds the token", f)
		}
	}
	unauthorized := wire.Faultf(wire.CodeUnauthorized, "")
	if err := s.found("wrong"); !errors.Is(err, unauthorized) {
		t.Errorf("wrong token: %v", err)
	}
	if err := s.found(token); err != nil {
		t.Error(err)
	}

	code, fresh, errs := tool(t, "token", "reset", "--db", db) // while it runs
	fresh = strings.TrimSpace(fresh)
	if code != 0 || len(fresh) < 20 {
		t.Fatalf("reset: %d %s", code, errs)
	}
	if err := s.found(token); !errors.Is(err, unauthorized) {
		t.Errorf("the old token: %v", err)
	}
	if err := s.found(fresh); err != nil {
		t.Error(err)
	}

	copied := filepath.Join(t.TempDir(), "copy.db")
	if code, out, errs := tool(t, "backup", "--db", db, copied); code != 0 || !strings.Contains(out, copied) {
		t.Fatalf("backup: %d %s", code, errs)
	}
	if code, _, errs := tool(t, "backup", "--db", db, copied); code != 1 || !strings.Contains(errs, "exist") {
		t.Errorf("backup over a file: %d %s", code, errs)
	}
	if st, err := os.Stat(copied); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	for _, f := range []string{db, copied} {
		if code, out, errs := tool(t, "check", "--db", f); code != 0 || !strings.Contains(out, "whole") {
			t.Errorf("check: %d %s", code, errs)
		}
	}
	if code, out, errs := tool(t, "health", "--url", strings.TrimSuffix(strings.Replace(s.url, "ws", "http", 1), "/ws")); code != 0 || !strings.Contains(out, "ready") {
		t.Errorf("health: %d %s", code, errs)
	}
	if code, _, errs := tool(t, "--db", db, "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(errs, "another broker has the database open") {
		t.Errorf("second broker: %d %s", code, errs)
	}
	host := strings.TrimSuffix(strings.TrimPrefix(s.url, "ws://"), "/ws")
	if code, _, errs := tool(t, "--db", filepath.Join(t.TempDir(), "o.db"), "--listen", host); code != 1 || !strings.Contains(errs, "in use") || !strings.Contains(errs, "--listen") {
		t.Errorf("port in use: %d %s", code, errs)
	}
	if c := s.stop(); c != 0 {
		t.Errorf("exit code %d: %s", c, s.errs.String())
	}
	if code, _, _ := tool(t, "health", "--url", "http://"+host); code != 1 {
		t.Errorf("health of nothing: %d", code)
	}
	for _, f := range []string{db, copied} {
		again := start(t, "--db", f)
		if tokenPattern.MatchString(again.out.String()) || strings.Contains(again.out.String(), "First start") {
			t.Errorf("second start: %s", again.out.String())
		}
		if err := again.found(fresh); err != nil {
			t.Error(err)
		}
		again.stop()
	}
}

func TestAdminToken(t *testing.T) {
	db := filepath.Join(t.TempDir(), "mesh.db")
	t.Setenv("CLAUDEMESH_BROKER_ADMIN_TOKEN", "from-the-environment")
	s := start(t, "--db", db)
	if strings.Contains(s.out.String(), "token") || strings.Contains(s.out.String()+s.errs.String(), "from-the-environment") {
		t.Errorf("it prints a token: %s", s.out.String())
	}
	if err := s.found("from-the-environment"); err != nil {
		t.Error(err)
	}
	s.stop()
	s = start(t, "--db", db, "--admin-token", "another")
	if s.found("from-the-environment") == nil {
		t.Error("the old token founds")
	}
	if err := s.found("another"); err != nil {
		t.Error(err)
	}
	s.stop()
}

func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	token, run, db := filepath.Join(dir, "token"), filepath.Join(dir, "run.json"), filepath.Join(dir, "mesh.db")
	if err := os.WriteFile(token, []byte("from-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "--db", db, "--admin-token-file", token, "--run-file", run)
	if strings.Contains(s.out.String()+s.errs.String(), "from-the-file") {
		t.Error("the token is printed")
	}
	if err := s.found("from-the-file"); err != nil {
		t.Error(err)
	}
	for range 6000 { // it is written when the broker listens already
		if _, alive := brokerfile.ReadRunning(run); alive {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if r, alive := brokerfile.ReadRunning(run); !alive || r.PID != os.Getpid() || r.URL != s.url {
		t.Errorf("run file: %+v, %v", r, alive)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(run); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run file stays: %v", err)
	}
	for _, args := range [][]string{{"--admin-token-file", run}, {"--run-file", dir}} {
		if code, _, errs := tool(t, append(args, "--db", db, "--listen", "127.0.0.1:0")...); code != 1 || !strings.Contains(errs, args[0]) {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
	if code, _, errs := tool(t, "--db", db, "--admin-token", "x", "--admin-token-file", token); code != 2 {
		t.Errorf("both: %d %s", code, errs)
	}
}

func TestOpen(t *testing.T) {
	s := start(t, "--db", filepath.Join(t.TempDir(), "mesh.db"), "--open", "--log-format", "text", "--send-burst", "3")
	if err := s.found(""); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, args := range [][]string{
		{"--bogus"}, {"surplus"}, {"--window", "0"}, {"--lease", "-1s"}, {"--window", "many"}, {"--tls-cert", "x"}, {"--tls-key", "x"},
		{"--tls-domain", "d", "--tls-cert", "x", "--tls-key", "y"}, {"--log-level", "loud"}, {"--log-format", "xml"}, {"--public-url", "mesh.example.com"},
		{"backup"}, {"backup", "a", "b"}, {"check", "x"}, {"health", "x"}, {"token"}, {"token", "reset", "x"}, {"check", "--bogus"},
	} {
		if code, out, errs := tool(t, args...); code != 2 || !strings.Contains(errs, "--help") || strings.Contains(out, "listening") {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
	for _, args := range [][]string{{"--help"}, {"--version"}, {"version"}, {"backup", "--help"}} {
		if code, out, _ := tool(t, args...); code != 0 || out == "" {
			t.Errorf("%v: %d", args, code)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("usage errors left %v", left)
	}
}

func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	start(t, "--db", good, "--open").stop()
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	torn := bytes.Clone(raw)
	for i := 4096; i < len(torn); i++ {
		torn[i] ^= 0x5a
	}
	newer := write("newer.db", raw)
	db, err := sql.Open("sqlite", newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO schema_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	for _, c := range []struct {
		file, want string
		starts     bool
	}{
		{write("text.db", []byte(strings.Repeat("not a database ", 999))), "damaged", false},
		{write("torn.db", torn), "damaged", false},
		{newer, "newer", false},
		{filepath.Join(dir, "none.db"), "no such file", true},
	} {
		if code, _, errs := tool(t, "check", "--db", c.file); code != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("check %s: %d %s", c.file, code, errs)
		}
		if c.starts {
			continue
		}
		code, out, errs := tool(t, "--db", c.file, "--listen", "127.0.0.1:0")
		if code != 1 || !strings.Contains(errs, c.want) || strings.Contains(out, "listening") {
			t.Errorf("start %s: %d %s", c.file, code, errs)
		}
	}
}

// A real process ends within its time on SIGTERM, with peers that do not answer.
func TestSignal(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := os.StartProcess(exe, []string{"claudemesh-broker", "--db", filepath.Join(t.TempDir(), "mesh.db"), "--listen", "127.0.0.1:0", "--hello-timeout", "1m"},
		&os.ProcAttr{Env: append(os.Environ(), "BROKER_MAIN=1"), Files: []*os.File{nil, wr, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	_ = wr.Close()
	buf, got := make([]byte, 4096), ""
	for listening.FindString(got) == "" {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err, got)
		}
		got += string(buf[:n])
	}
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(listening.FindStringSubmatch(got)[1], "ws://"), "/ws"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	if _, err := conn.Read(buf); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	st, err := p.Wait()
	if err != nil || st.ExitCode() != 0 || time.Since(began) > 10*time.Second {
		t.Errorf("%v %v after %v", st, err, time.Since(began))
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for f, b := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk})} {
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, errs := tool(t, "--db", filepath.Join(dir, "x.db"), "--tls-cert", certFile, "--tls-key", certFile); code != 1 || !strings.Contains(errs, "TLS certificate") {
		t.Errorf("bad key: %d %s", code, errs)
	}
	s := start(t, "--db", filepath.Join(dir, "mesh.db"), "--tls-cert", certFile, "--tls-key", keyFile)
	if !strings.HasPrefix(s.url, "wss://") {
		t.Fatal(s.url)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, s.url, nil); err == nil {
		t.Error("an unknown certificate is trusted")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	ws, _, err := websocket.Dial(ctx, s.url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	_, raw, err := ws.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := wire.Decode(raw); err != nil || f.Type() != wire.TypeChallenge {
		t.Errorf("%v %v", f, err)
	}
	go func() { _, _, _ = ws.Read(ctx) }() // answers the close
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
