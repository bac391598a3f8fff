package main

import (
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// maxCardField is how much of a fact a card carries, in bytes.
const maxCardField = 512

// fit makes any text one that a card takes.
func fit(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxCardField {
		return s
	}
	n := maxCardField
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// gitInfo returns the repository of a directory, as its origin names it or else
// its folder, and the branch; "" for what is not known. It reads files and runs
// nothing.
func gitInfo(dir string) (repo, branch string) {
	for {
		if git := gitDir(dir); git != "" {
			head := strings.TrimSpace(readSome(filepath.Join(git, "HEAD")))
			if ref, ok := strings.CutPrefix(head, "ref: refs/heads/"); ok {
				branch = ref
			}
			common := git
			if c := strings.TrimSpace(readSome(filepath.Join(git, "commondir"))); c != "" {
				if common = c; !filepath.IsAbs(c) {
					common = filepath.Join(git, c)
				}
			}
			if repo = originName(readSome(filepath.Join(common, "config"))); repo == "" {
				repo = filepath.Base(dir)
			}
			return repo, branch
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", ""
		}
		dir = up
	}
}

// gitDir returns the .git directory of a work tree's root, "" when it is none.
func gitDir(dir string) string {
	path := filepath.Join(dir, ".git")
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if info.IsDir() {
		return path
	}
	target, ok := strings.CutPrefix(strings.TrimSpace(readSome(path)), "gitdir: ")
	if !ok {
		return ""
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return target
}

// originName returns host/path of the remote called origin, without what may be
// a secret in its URL.
func originName(config string) string {
	inside := false
	for line := range strings.Lines(config) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			inside = line == `[remote "origin"]`
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !inside || !ok || strings.TrimSpace(key) != "url" {
			continue
		}
		value = strings.TrimSpace(value)
		if u, err := url.Parse(value); err == nil && u.Host != "" {
			return strings.TrimSuffix(u.Hostname()+u.Path, ".git")
		}
		if _, after, ok := strings.Cut(value, "@"); ok { // git@host:path
			value = after
		}
		return strings.TrimSuffix(strings.Replace(value, ":", "/", 1), ".git")
	}
	return ""
}

// readSome reads the start of a file, "" when there is none.
func readSome(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return ""
	}
	return string(raw)
}
