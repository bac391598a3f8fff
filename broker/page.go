package broker

import (
	"html/template"
	"net/http"
	"strings"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// invitePage tells who opened an https invite link what to install and run. It
// has no script, loads nothing, and never sees the secret after the #.
var invitePage = template.Must(template.New("invite").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer"><title>claudemesh invite</title></head>
<body>
<h1>You are invited to a claudemesh mesh</h1>
<p>A mesh lets your Claude Code sessions and those of your friends find each other and talk, end to end encrypted.</p>
<ol>
<li>Install it: <pre>go install github.com/claudemesh/claudemesh/cmd/claudemesh@latest</pre></li>
<li>Copy the whole address of this page, with everything after the #, and run
<pre>claudemesh join -</pre>
then paste the address and press Enter. Given on standard input it stays out of your shell's history.</li>
<li>Add it to Claude Code: <pre>claudemesh install</pre></li>
</ol>
<p>Invite {{.ID}} at {{.Host}}. The part after the # is the secret; it was not sent to this server.
Better still, ask for the form of the link that starts with ic://join/, which no browser opens.</p>
</body></html>
`))

func (b *Broker) invitePage(w http.ResponseWriter, r *http.Request) {
	id, err := wire.ParseID(r.PathValue("id"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	host := r.Host
	if b.cfg.PublicURL != "" {
		_, host, _ = strings.Cut(b.cfg.PublicURL, "://")
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if err := invitePage.Execute(w, map[string]string{"ID": id.String(), "Host": host}); err != nil {
		b.log.Debug("page not written", "error", err)
	}
}
