package deploytest

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func loadCompose(ctx context.Context, env ...string) (*types.Project, error) {
	opts, err := cli.NewProjectOptions([]string{"../compose.yml"}, cli.WithEnv(env), cli.WithResolvedPaths(true))
	if err != nil {
		return nil, err
	}
	return opts.LoadProject(ctx)
}

func compose(t *testing.T) *types.Project {
	t.Helper()
	p, err := loadCompose(t.Context(), "DOMAIN=mesh.example.com")
	check(t, err)
	return p
}

// brokers returns the services that run one.
func brokers(p *types.Project) (out []types.ServiceConfig) {
	for _, name := range p.ServiceNames() {
		if s := p.Services[name]; s.Image == "claudemesh-broker" {
			out = append(out, s)
		}
	}
	return out
}

func TestComposeNeedsDomain(t *testing.T) {
	if _, err := loadCompose(t.Context()); err == nil || !strings.Contains(err.Error(), "DOMAIN") {
		t.Errorf("without DOMAIN: %v", err)
	}
}

// Nothing is reached from outside but Caddy.
func TestComposeNetworks(t *testing.T) {
	p := compose(t)
	if !p.Networks["inner"].Internal {
		t.Error("the inner network is not internal")
	}
	for name, s := range p.Services {
		if name == "caddy" {
			continue
		}
		if len(s.Ports) > 0 || s.NetworkMode != "" {
			t.Errorf("%s opens ports: %v %q", name, s.Ports, s.NetworkMode)
		}
		if nets := s.NetworksByPriority(); !slices.Equal(nets, []string{"inner"}) {
			t.Errorf("%s is in networks %v", name, nets)
		}
	}
}

func TestComposeBrokers(t *testing.T) {
	p := compose(t)
	all := brokers(p)
	if len(all) != 2 {
		t.Fatalf("%d brokers", len(all))
	}
	nodes := map[string]bool{}
	for _, s := range all {
		env := map[string]string{}
		for name, value := range s.Environment {
			knownEnv(t, s.Name, name)
			env[name] = *value
		}
		nodes[env["CLAUDEMESH_BROKER_NODE"]] = true
		if _, err := os.Stat(filepath.Join(s.Build.Context, "Dockerfile")); err != nil {
			t.Error(err)
		}
		if env["CLAUDEMESH_BROKER_DB"] != "" || env["CLAUDEMESH_BROKER_PUBLIC_URL"] != "https://mesh.example.com" {
			t.Errorf("%s: %v", s.Name, env)
		}
		for name, value := range env {
			if secret, ok := strings.CutPrefix(value, "/run/secrets/"); ok != strings.HasSuffix(name, "_FILE") || ok && !given(s, secret) {
				t.Errorf("%s: %s=%s is no secret of the service", s.Name, name, value)
			}
		}
		if bus := env["CLAUDEMESH_BROKER_BUS"]; bus != "nats://nats:4222" || p.Services["nats"].Name == "" {
			t.Errorf("%s: bus %q", s.Name, bus)
		}
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged || s.User != "" {
			t.Errorf("%s has more rights than it needs", s.Name)
		}
		if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) <= stopWithin {
			t.Errorf("%s is killed while it stops", s.Name)
		}
		if s.DependsOn["postgres"].Condition != types.ServiceConditionHealthy {
			t.Errorf("%s does not wait for Postgres", s.Name)
		}
	}
	if len(nodes) != len(all) || nodes[""] {
		t.Errorf("nodes are named %v", nodes)
	}
}

func given(s types.ServiceConfig, secret string) bool {
	return slices.ContainsFunc(s.Secrets, func(c types.ServiceSecretConfig) bool { return c.Source == secret })
}

func TestComposePostgres(t *testing.T) {
	p := compose(t)
	s := p.Services["postgres"]
	if !strings.Contains(strings.Join(s.Command, " "), "synchronous_commit=on") {
		t.Errorf("command %q", s.Command)
	}
	if s.HealthCheck == nil || len(s.Volumes) != 1 || s.Volumes[0].Type != types.VolumeTypeVolume || p.Volumes[s.Volumes[0].Source].Name == "" {
		t.Errorf("health check %v, volumes %v", s.HealthCheck, s.Volumes)
	}
	for name, value := range s.Environment {
		if strings.Contains(name, "PASSWORD") && (name != "POSTGRES_PASSWORD_FILE" || !given(s, strings.TrimPrefix(*value, "/run/secrets/"))) {
			t.Errorf("%s=%s", name, *value)
		}
	}
}

// The commands at the top make every secret, and the database's URL is that of
// the database which the file starts.
func TestComposeSecrets(t *testing.T) {
	p := compose(t)
	text := read(t, "../compose.yml")
	for name, s := range p.Secrets {
		if want := "> secrets/" + name + "\n"; s.File == "" || filepath.Base(s.File) != name || !strings.Contains(text, want) {
			t.Errorf("secret %s: file %q, and no command ends in %q", name, s.File, want)
		}
	}
	pg := p.Services["postgres"]
	url := "postgres://" + *pg.Environment["POSTGRES_USER"] + ":%s@" + pg.Name + "/" + *pg.Environment["POSTGRES_DB"]
	if !regexp.MustCompile(regexp.QuoteMeta(url) + `\b`).MatchString(text) {
		t.Errorf("no command writes %s", url)
	}
	for _, ignored := range []string{"/deploy/secrets/", "/deploy/.env"} {
		if !strings.Contains(read(t, "../../.gitignore"), ignored+"\n") {
			t.Errorf("git does not ignore %s", ignored)
		}
	}
}
