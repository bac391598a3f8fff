package clustertest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// watch has a database look, at the very end of every transaction that wrote to
// the queue or to presence, whether it is one of a node that stands: fence was
// called in it, and the row of the node with that epoch is there still. What is
// not so is noted, with whether any epoch was known. It goes by what is committed then,
// so it also catches a fence that locks nothing.
const watch = `
CREATE TABLE audit (at timestamptz NOT NULL DEFAULT clock_timestamp(), what text NOT NULL, epoch bigint, claimed bigint);
CREATE SEQUENCE audit_checks;
ALTER FUNCTION fence(text, bigint) RENAME TO fence_itself;
CREATE FUNCTION fence(me text, mine bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fence_itself(me, mine);
    PERFORM set_config('audit.epoch', mine::text, true);
END $$;
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mine bigint := nullif(current_setting('audit.epoch', true), '')::bigint;
    claimed bigint := CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE (to_jsonb(NEW) ->> 'epoch')::bigint END;
BEGIN
    PERFORM nextval('audit_checks');
    IF mine IS NULL OR claimed <> mine OR NOT EXISTS (SELECT FROM node WHERE epoch = mine) THEN
        INSERT INTO audit (what, epoch, claimed) VALUES (TG_OP || ' ' || TG_TABLE_NAME, mine, claimed);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER audit AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit();
CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON delivery DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit();
CREATE CONSTRAINT TRIGGER audit AFTER INSERT ON outcome DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit();
CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR UPDATE ON presence DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit();`

// Audit watches the writes to a database.
type Audit struct {
	t  testing.TB
	db string
}

// NewAudit begins, on a database with the schema and before any node has
// connected: statements that were prepared before go around it.
func NewAudit(t testing.TB, db string) *Audit {
	t.Helper()
	a := &Audit{t, db}
	a.with(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, watch)
		return err
	})
	return a
}

// Breach is a row that a transaction wrote that was of no node that stands.
type Breach struct {
	What    string // such as INSERT outcome
	Epoch   *int64 // that the transaction was fenced by; nil: it was not
	Claimed *int64 // that stands in the row
}

// Result returns how many rows were checked, and the first breaches.
func (a *Audit) Result() (checked int64, breaches []Breach) {
	a.t.Helper()
	a.with(func(ctx context.Context, c *pgx.Conn) error {
		if err := c.QueryRow(ctx, "SELECT last_value FROM audit_checks").Scan(&checked); err != nil {
			return err
		}
		rows, err := c.Query(ctx, "SELECT what, epoch, claimed FROM audit ORDER BY at LIMIT 20")
		if err != nil {
			return err
		}
		breaches, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Breach])
		return err
	})
	return checked, breaches
}

func (a *Audit) with(run func(ctx context.Context, c *pgx.Conn) error) {
	a.t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, a.db)
	Must(a.t, err)
	defer c.Close(ctx)
	Must(a.t, run(ctx, c))
}
