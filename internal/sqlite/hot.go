package sqlite

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// hotStatement is a statement of the hot path. It runs on the driver's own
// connection: what database/sql does around each call costs as much as binding
// and stepping a small statement.
type hotStatement struct {
	query string
	stmt  driver.StmtExecContext
	args  []driver.NamedValue // kept between calls
}

// exec runs the statement and returns the number of rows it changed.
func (h *hotStatement) exec(conn *sql.Conn, args ...any) (changed int64, err error) {
	err = conn.Raw(func(dc any) error {
		if err := h.prepare(dc); err != nil {
			return err
		}
		h.args = h.args[:0]
		for i, a := range args {
			h.args = append(h.args, driver.NamedValue{Ordinal: i + 1, Value: a})
		}
		res, err := h.stmt.ExecContext(bg, h.args)
		clear(h.args) // or they would keep a body alive
		if err != nil {
			return err
		}
		changed, err = res.RowsAffected()
		return err
	})
	return changed, err
}

func (h *hotStatement) prepare(dc any) error {
	if h.stmt != nil {
		return nil
	}
	p, ok := dc.(driver.ConnPrepareContext)
	if !ok {
		return fmt.Errorf("the driver's %T prepares nothing", dc)
	}
	st, err := p.PrepareContext(bg, h.query)
	if err != nil {
		return fmt.Errorf("prepare %q: %w", h.query, err)
	}
	if h.stmt, ok = st.(driver.StmtExecContext); !ok {
		return errors.Join(fmt.Errorf("the driver's %T executes nothing", st), st.Close())
	}
	return nil
}

func (h *hotStatement) close() error {
	if st, ok := h.stmt.(driver.Stmt); ok {
		return st.Close()
	}
	return nil
}
