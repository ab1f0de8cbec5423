//go:build linux

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// sqlite commits rows one by one, each a durable transaction.
func sqlite(ctx context.Context, e *env) error {
	exe, err := install(ctx, e.bench, "sqlite3")
	if err != nil {
		return err
	}
	db := e.path("wal.sqlite")
	shell := func(script string) (string, error) {
		cmd := exec.CommandContext(ctx, exe, "-batch", "-bail", db)
		cmd.Stdin = strings.NewReader(script)
		out, err := output(cmd)
		return strings.TrimSpace(string(out)), err
	}
	mode, err := shell("pragma journal_mode=wal; create table t(id integer primary key, k text, v blob);")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("sqlite chose journal_mode=%s", mode)
	}
	n := e.count(10_000, 100)
	var script strings.Builder
	script.WriteString("pragma synchronous=full;\n")
	values := fresh(n * 100)
	for i := range n {
		fmt.Fprintf(&script, "insert into t(k,v) values('key%d',x'%s');\n", i, hex.EncodeToString(values[i*100:(i+1)*100]))
	}
	start := time.Now()
	if _, err := shell(script.String()); err != nil {
		return err
	}
	e.record("sqlite", perSecond(n, time.Since(start)))
	check, err := shell("select count(*) from t; pragma integrity_check;")
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%d\nok", n); check != want {
		return fmt.Errorf("the database is damaged: %q", check)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(db + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
