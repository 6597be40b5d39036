package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/admin"
)

// A list that is written part by part reads as one that is written as a whole.
func TestListInPartsReadsAsOne(t *testing.T) {
	for _, format := range []string{"json", "yaml", "name", "table"} {
		for _, n := range []int{0, 1, 2, 5} {
			var all rows
			for i := range n {
				a := admin.App{Name: fmt.Sprintf("app-%d<>", i), Targets: i}
				all.data = append(all.data, a)
				all.names = append(all.names, "app/"+a.Name)
				all.cells = append(all.cells, []string{a.Name, "日本", ""})
			}
			all.header = []string{"NAME", "B", "C"}
			write := func(size int) string {
				var out, said bytes.Buffer
				l := &listed{c: &cli{stdout: &out, stderr: &said}, format: format, what: "apps"}
				for i := 0; i <= n; i += size { // the last part may be empty
					to := min(i+size, n)
					if err := l.add(rows{data: all.data[i:to], header: all.header, cells: all.cells[i:to],
						names: all.names[i:to]}); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.end(); err != nil {
					t.Fatal(err)
				}
				return out.String() + said.String()
			}
			whole, parts := write(10), write(2)
			if whole != parts {
				t.Errorf("%s of %d:\n%s\nin parts:\n%s", format, n, whole, parts)
			}
			want := ""
			switch format {
			case "json", "yaml":
				var b bytes.Buffer
				if err := encode(&b, format, append([]any{}, all.data...)); err != nil {
					t.Fatal(err)
				}
				want = b.String()
			case "table":
				want = "There are no apps.\n"
				if n > 0 {
					want = "NAME      B    C\n"
				}
			}
			if !strings.HasPrefix(whole, want) {
				t.Errorf("%s of %d:\n%q\nwant\n%q", format, n, whole, want)
			}
		}
	}
}

// A column that a later part makes wider stays as wide, so that rows below each other line up.
func TestColumnsNeverBecomeNarrower(t *testing.T) {
	var out bytes.Buffer
	var c columns
	for _, rows := range [][][]string{{{"A", "B"}, {"1", "2"}}, {{"wider", "2"}}, {{"1", "2"}}} {
		if err := c.write(&out, rows); err != nil {
			t.Fatal(err)
		}
	}
	if want := "A   B\n1   2\nwider   2\n1       2\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}
