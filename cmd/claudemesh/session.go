package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// The environment by which launch tells a session, and what it starts, who it is.
const (
	envMode    = "CLAUDEMESH_MODE"
	envChannel = "CLAUDEMESH_CHANNEL"
	envName    = "CLAUDEMESH_NAME"
	envRole    = "CLAUDEMESH_ROLE"
	envGroups  = "CLAUDEMESH_GROUPS"
	envMesh    = "CLAUDEMESH_MESH"
)

// session is what a person says of one session.
type session struct {
	mesh   string // the only mesh to enter, "" for all
	name   string // its label, "" for the directory's
	role   string // in the groups that give none
	groups []client.Group
}

// sessionFlags are the flags over session, but for --mesh, which is the root's.
func sessionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "the `LABEL` of this session in the list of peers"},
		&cli.StringFlag{Name: "groups", Usage: "the `GROUPS` that the session joins, as backend:lead,review"},
		&cli.StringFlag{Name: "role", Usage: "its `ROLE` in those of --groups that give none"},
	}
}

// readSession takes the flags, and where one is absent the environment.
func readSession(c *cli.Command, mesh string, getenv func(string) string) (session, error) {
	s := session{
		mesh: cmp.Or(mesh, getenv(envMesh)), name: cmp.Or(c.String("name"), getenv(envName)),
		role: cmp.Or(c.String("role"), getenv(envRole)),
	}
	for what, name := range map[string]string{"name": s.name, "role": s.role} {
		if name != "" && !trust.ValidName(name) {
			return s, badName("--"+what+" ", name)
		}
	}
	groups, err := parseGroups(cmp.Or(c.String("groups"), getenv(envGroups)), s.role)
	if err != nil {
		return s, err
	}
	if s.groups = groups; s.role != "" && len(groups) == 0 {
		return s, usagef("--role is the role in the groups of --groups, and there are none").hinted("--groups team --role " + s.role)
	}
	return s, nil
}

// parseGroups reads backend:lead,review; role is that of groups without one.
func parseGroups(text, role string) ([]client.Group, error) {
	var groups []client.Group
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, own, _ := strings.Cut(strings.TrimPrefix(part, "@"), ":")
		g := client.Group{Name: name, Role: cmp.Or(own, role)}
		if !trust.ValidName(g.Name) {
			return nil, badName("--groups ", g.Name)
		}
		if g.Role != "" && !trust.ValidName(g.Role) {
			return nil, badName("--groups "+g.Name+":", g.Role)
		}
		if slices.ContainsFunc(groups, func(o client.Group) bool { return o.Name == g.Name }) {
			return nil, usagef("--groups names %s twice", g.Name)
		}
		groups = append(groups, g)
	}
	if len(groups) > client.MaxGroups {
		return nil, usagef("a session joins at most %d groups", client.MaxGroups)
	}
	slices.SortFunc(groups, func(a, b client.Group) int { return cmp.Compare(a.Name, b.Name) })
	return groups, nil
}

// badName refuses the value of a flag that is a name.
func badName(flag, name string) error {
	return &failure{
		code: "bad_name", exit: exitUsage, text: flag + name + ": " + client.ErrBadName.Error(), hint: flag + sanitizeName(name),
	}
}

// environ is the session for the programs that claude starts.
func (s session) environ() (env []string) {
	var groups []string
	for _, g := range s.groups {
		groups = append(groups, strings.TrimSuffix(g.Name+":"+g.Role, ":"))
	}
	for _, v := range [][2]string{{envMesh, s.mesh}, {envName, s.name}, {envRole, s.role}, {envGroups, strings.Join(groups, ",")}} {
		if v[1] != "" {
			env = append(env, v[0]+"="+v[1])
		}
	}
	return env
}
