package claudecode

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"regexp"
	"strings"
)

// tree is the plugin as it stands in the repository: a whole plugin for a
// claudemesh that is on PATH. Its tests stay out.
//
//go:embed plugin/.claude-plugin plugin/.mcp.json plugin/hooks plugin/skills plugin/README.md
var tree embed.FS

// marketplace names the plugin in the folder beside it.
const marketplace = `{
  "name": "claudemesh",
  "description": "The plugin of the claudemesh on this machine, written by it.",
  "owner": { "name": "claudemesh authors" },
  "plugins": [{ "name": "claudemesh", "source": "./claudemesh" }]
}
`

// file is one file of the marketplace; path is relative, with slashes.
type file struct {
	path string
	data []byte
}

// render is the marketplace with the plugin for claudemesh as it is started by
// command (the program, then what stands before a command's name), sorted by path.
func render(command []string, version string) []file {
	files := []file{{".claude-plugin/marketplace.json", []byte(marketplace)}}
	fill := filler(command, version)
	err := fs.WalkDir(tree, "plugin", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := tree.ReadFile(path)
		if err != nil {
			return err
		}
		text := string(data)
		if strings.HasSuffix(path, ".json") || strings.HasSuffix(path, "/command.js") {
			text = fill.Replace(text)
		}
		files = append(files, file{ServerName + strings.TrimPrefix(path, "plugin"), []byte(text)})
		return nil
	})
	if err != nil {
		panic(err) // it is in the binary
	}
	return files
}

// filler puts the command and the version in the place of those in tree.
func filler(command []string, version string) *strings.Replacer {
	before := ""
	for _, arg := range command[1:] {
		before += quoteJSON(arg) + ", "
	}
	return strings.NewReplacer(
		`"command": "claudemesh", "args": [`, `"command": `+quoteJSON(command[0])+`, "args": [`+before,
		`= ["claudemesh"]`, `= `+quoteJSON(command),
		`"version": "0.0.0"`, `"version": `+quoteJSON(version),
	)
}

func quoteJSON(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings only
	}
	return strings.TrimSpace(b.String())
}

// sum tells whether a rendering is the one that was written.
func sum(files []file) string {
	h := sha256.New()
	for _, f := range files {
		for _, part := range [][]byte{[]byte(f.path), f.data} {
			n := sha256.Sum256(part)
			h.Write(n[:])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

var semantic = regexp.MustCompile(`^v?((0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z.-]+)?)(\+[0-9A-Za-z.-]+)?$`)

// pluginVersion is the product's version as a plugin can have it; a build that
// has none is 0.0.0, before all others.
func pluginVersion(product string) string {
	word, _, _ := strings.Cut(product, " ")
	if m := semantic.FindStringSubmatch(word); m != nil {
		return m[1]
	}
	return "0.0.0-" + strings.Trim(regexp.MustCompile(`[^0-9A-Za-z-]+`).ReplaceAllString("dev-"+strings.TrimPrefix(word, "dev"), "-"), "-")
}
