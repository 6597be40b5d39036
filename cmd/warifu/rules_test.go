package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/oauth"
)

// sources are the files of packages, without tests and without the table of rules itself.
func sources(t *testing.T, dirs ...string) []*ast.File {
	t.Helper()
	var files []*ast.File
	for _, dir := range dirs {
		names, err := filepath.Glob("../../" + dir + "/*.go")
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(names), err)
		}
		for _, name := range names {
			if base := filepath.Base(name); strings.HasSuffix(base, "_test.go") || strings.HasPrefix(base, "rules") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
	}
	return files
}

// codeArguments are the functions that make a fault or a denial, and which of their arguments is the code.
var codeArguments = map[string]int{"Errorf": 2, "Warnf": 2, "ElsewhereErrorf": 2, "fault": 1, "deny": 0,
	"violates": 2, "about": 1}

// problemCode is the type of the codes of problems, which are constants: see package admin.
const problemCode = "code"

// Every code of a fault, of a denial and of a problem has its words, and the table has words for nothing else.
func TestRulesOfManifestsAreThoseInTheTable(t *testing.T) {
	texts, codes, problems := make(map[string]bool), make(map[string]bool), 0
	for _, file := range sources(t, "manifests", "manifests/strictyaml", "plugins/hookoauth", "server/oauth",
		"server/admin", "cmd/warifu") {
		ast.Inspect(file, func(n ast.Node) bool {
			var code ast.Expr
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil {
					texts[strings.ReplaceAll(text, "_", "-")] = true
				}
			case *ast.CallExpr:
				name := ""
				switch called := n.Fun.(type) {
				case *ast.SelectorExpr:
					name = called.Sel.Name
				case *ast.Ident:
					name = called.Name
				}
				if i, makes := codeArguments[name]; makes && len(n.Args) > i+1 {
					code = n.Args[i]
				}
				if name == "problem" && len(n.Args) == 4 {
					if literal, is := n.Args[1].(*ast.BasicLit); is {
						t.Errorf("the code %s of a problem is not one of the constants", literal.Value)
					}
				}
			case *ast.ValueSpec:
				if typ, is := n.Type.(*ast.Ident); is && typ.Name == problemCode {
					code = n.Values[0]
					problems++
				} else if file.Name.Name == "hookoauth" && strings.HasPrefix(n.Names[0].Name, "Code") {
					code = n.Values[0]
				}
			case *ast.AssignStmt:
				if name, is := n.Lhs[0].(*ast.Ident); is && name.Name == "code" {
					code = n.Rhs[0]
				}
			case *ast.KeyValueExpr:
				if key, is := n.Key.(*ast.Ident); is && key.Name == "Code" {
					code = n.Value
				}
			}
			if literal, is := code.(*ast.BasicLit); is && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				codes[text] = true
			}
			return true
		})
	}
	if len(codes) < 40 || problems < 40 {
		t.Fatalf("only %d codes were found, %d of problems", len(codes), problems)
	}
	for code := range codes {
		if _, known := oauth.FindRule(code); !known {
			t.Errorf("the table of rules has no words for %s", code)
		}
	}
	constants := make(map[string]bool)
	for _, name := range requestRuleNames(t) {
		constants[name] = true
	}
	for _, rule := range oauth.Rules() {
		reason, isRedirect := strings.CutPrefix(rule.Name, "redirect-uri-")
		if !constants[rule.Name] && !texts[rule.Name] && !(isRedirect && texts[reason]) {
			t.Errorf("%s is in the table of rules, and nothing refuses by it", rule.Name)
		}
	}
}

// requestRuleNames are the values of the constants RuleXxx, by the name of the constant.
func requestRuleNames(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../server/oauth/rules.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]string)
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, is := n.(*ast.ValueSpec); is && strings.HasPrefix(spec.Names[0].Name, "Rule") {
			if names[spec.Names[0].Name], err = strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value); err != nil {
				t.Fatal(err)
			}
		}
		return true
	})
	return names
}
