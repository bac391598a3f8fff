package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/term"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/version"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// stopWithin bounds a shutdown.
const stopWithin = 8 * time.Second

func envName(flag string) string {
	return strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func limitError(name string) error { return fmt.Errorf("--%s must be above zero; %w", name, errUsage) }

// serve opens the store, listens, and serves until a signal.
func serve(ctx context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	cfg, err := config(c, log)
	if err != nil {
		return err
	}
	tlsConfig, err := tlsSetup(c)
	if err != nil {
		return err
	}
	db, err := readDatabase(c)
	if err != nil {
		return err
	}
	fatal := make(chan error, 1)
	onFatal := func(err error) { fatal <- err }
	if cfg.Store, err = db.open(ctx, log, onFatal); err != nil {
		return err
	}
	records, err := openAudit(c, db)
	if err != nil {
		return errors.Join(err, cfg.Store.Close())
	}
	if records != nil {
		cfg.Audit = appendTo(records, log)
		defer records.Close()
	}
	err = listenAndServe(ctx, c, db, cfg, tlsConfig, fatal)
	return errors.Join(err, cfg.Store.Close())
}

func listenAndServe(ctx context.Context, c *cli.Command, db database, cfg broker.Config, tlsConfig *tls.Config, fatal chan error) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", c.String("listen"))
	if err != nil {
		return fmt.Errorf("%w; choose another --listen address, or stop what listens there", err)
	}
	if cfg.Cluster, err = db.cluster(c, ln, cfg.Logger, func(err error) { fatal <- err }); err != nil {
		return errors.Join(err, ln.Close())
	}
	if b := cfg.Cluster.Bus; b != nil {
		defer b.Close()
	}
	b, err := broker.New(ctx, cfg)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	srv := b.Server()
	srv.TLSConfig = tlsConfig
	url := socketURL(c, ln, tlsConfig != nil)
	greet(c, db, url, b.PublicKey(), b.TakeToken())
	if path := c.String("run-file"); path != "" {
		if err := (brokerfile.Running{Process: process.Self(), URL: url, Version: version.String()}).Write(path); err != nil {
			_ = b.Shutdown(ctx)
			return errors.Join(fmt.Errorf("--run-file: %w", err), ln.Close())
		}
		defer os.Remove(path) // the store is open still, and so it is nobody else's
	}
	served := make(chan error, 1)
	go func() {
		if tlsConfig != nil {
			served <- srv.ServeTLS(ln, "", "")
			return
		}
		served <- srv.Serve(ln)
	}()
	select {
	case err = <-served:
	case err = <-fatal: // what was acknowledged is safe; what was not will be sent again
		if !errors.Is(err, broker.ErrReplaced) {
			cfg.Logger.Error("the disk failed; stopping at once", "error", err)
			os.Exit(1)
		}
	case <-ctx.Done():
		cfg.Logger.Info("stopping", "cause", context.Cause(ctx))
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	_ = ln.Close()
	if e := b.Shutdown(stop); e != nil {
		cfg.Logger.Warn("connections did not close in time", "error", e)
	}
	_ = srv.Shutdown(stop)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// socketURL is where peers connect.
func socketURL(c *cli.Command, ln net.Listener, secure bool) string {
	if p := c.String("public-url"); p != "" {
		return "ws" + strings.TrimPrefix(strings.TrimSuffix(p, "/"), "http") + wire.PathWS
	}
	scheme, host := "ws", ln.Addr().String()
	if secure {
		scheme = "wss"
	}
	if d := c.String("tls-domain"); d != "" {
		host = d
	}
	return scheme + "://" + strings.Replace(host, "[::]", "localhost", 1) + wire.PathWS
}

// greet says where peers connect and, at the first start, what to do next.
func greet(c *cli.Command, db database, url string, key wire.Key, token string) {
	out := c.Root().Writer
	fmt.Fprintf(out, "claudemesh-broker %s, database %s\nlistening on %s\nkey %s\n", version.String(), db, url, key)
	if token == "" {
		return
	}
	fmt.Fprintf(out, `
First start. The admin token, shown this once (only its hash is kept):

    %s

Found a mesh with it; the command asks for the token:

    claudemesh new acme --broker %s --as alice

`, token, url)
}

func config(c *cli.Command, log *slog.Logger) (broker.Config, error) {
	l, err := readLimits(c)
	if err != nil {
		return broker.Config{}, err
	}
	public := c.String("public-url")
	if public != "" && !strings.HasPrefix(public, "http://") && !strings.HasPrefix(public, "https://") {
		return broker.Config{}, fmt.Errorf("--public-url starts with https:// or http://; %w", errUsage)
	}
	token := c.String("admin-token")
	if file := c.String("admin-token-file"); file != "" {
		if token != "" {
			return broker.Config{}, fmt.Errorf("--admin-token and --admin-token-file: choose; %w", errUsage)
		}
		if token, err = brokerfile.ReadToken(file); err != nil {
			return broker.Config{}, fmt.Errorf("--admin-token-file: %w", err)
		}
	}
	db, err := readDatabase(c)
	if err != nil {
		return broker.Config{}, err
	}
	return broker.Config{
		Open: c.Bool("open"), AdminToken: token, PublicURL: public,
		ClientIPHeader: c.String("client-ip-header"), Limits: l, Version: version.String(), Logger: log,
		DiskUsage: db.diskUsage(),
	}, nil
}

// tlsSetup returns nil when the broker is to serve plain HTTP.
func tlsSetup(c *cli.Command) (*tls.Config, error) {
	domain, cert, key := c.String("tls-domain"), c.String("tls-cert"), c.String("tls-key")
	switch {
	case domain != "" && (cert != "" || key != ""):
		return nil, fmt.Errorf("--tls-domain obtains a certificate; --tls-cert and --tls-key give one: choose; %w", errUsage)
	case (cert == "") != (key == ""):
		return nil, fmt.Errorf("--tls-cert and --tls-key go together; %w", errUsage)
	case domain != "":
		dir := c.String("tls-cache")
		if dir == "" {
			dir = c.String("db") + ".certs"
			if postgres.IsURL(c.String("db")) || c.String("db-file") != "" {
				return nil, fmt.Errorf("--tls-domain with a Postgres database needs a directory for certificates: --tls-cache; %w", errUsage)
			}
		}
		m := &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(dir), HostPolicy: autocert.HostWhitelist(domain)}
		t := m.TLSConfig()
		t.NextProtos = []string{"http/1.1", "acme-tls/1"} // WebSockets are upgraded from HTTP/1.1
		return t, nil
	case cert != "":
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("TLS certificate: %w", err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
	}
	return nil, nil
}

func logger(c *cli.Command) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, fmt.Errorf("--log-level is debug, info, warn or error; %w", errUsage)
	}
	w := c.Root().ErrWriter
	o := &slog.HandlerOptions{Level: level}
	switch f := c.String("log-format"); {
	case f == "text", f == "" && isTerminal(w):
		return slog.New(slog.NewTextHandler(w, o)), nil
	case f == "json", f == "":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format is text or json; %w", errUsage)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
