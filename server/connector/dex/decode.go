package dex

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/warifu/warifu/server/oauth"
)

// report collects what is wrong with a configuration. Of one place it keeps the first fault: what is wrong with a value
// that could not be read is not news.
type report struct {
	faults []Fault
}

func (r *report) fault(path, code, suggestion, format string, args ...any) {
	if !r.has(path) {
		message := fmt.Sprintf(format, args...)
		r.faults = append(r.faults, Fault{Path: path, Code: code, Suggestion: suggestion, Message: message})
	}
}

// has reports whether something is wrong with a value, or with what holds it.
func (r *report) has(path string) bool {
	for _, f := range r.faults {
		below, inside := strings.CutPrefix(path, f.Path)
		switch {
		case inside && (below == "" || f.Path != "" && (below[0] == '.' || below[0] == '[')):
			return true
		case f.Path == "" && f.Code == "type": // none of it could be read
			return true
		}
	}
	return false
}

// decode reads a configuration into the struct that config points to, as encoding/json does, but strictly and to the
// end: every key that the struct does not have, and every value of another type, is a fault of its own.
func (r *report) decode(data json.RawMessage, config any) {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if len(bytes.TrimSpace(data)) > 0 {
		if err := decoder.Decode(&value); err != nil {
			r.fault("", "type", "", "is not JSON")
			return
		}
	}
	r.value("", value, reflect.ValueOf(config).Elem())
}

// value puts a value of JSON where it belongs. What is null stays as it is.
func (r *report) value(path string, value any, into reflect.Value) {
	if value == nil {
		return
	}
	if custom, is := into.Addr().Interface().(json.Unmarshaler); is {
		data, err := json.Marshal(value)
		if err == nil {
			err = custom.UnmarshalJSON(data)
		}
		if err != nil {
			r.fault(path, "type", "", "must be %s", typeName(into.Type()))
		}
		return
	}
	ok := false
	switch into.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(into.Type().Elem())
		r.value(path, value, fresh.Elem())
		into.Set(fresh)
		return
	case reflect.Struct:
		object, is := value.(map[string]any)
		if ok = is; ok {
			r.object(path, object, into)
		}
	case reflect.Map:
		object, is := value.(map[string]any)
		if ok = is; ok {
			into.Set(reflect.MakeMap(into.Type()))
			for _, key := range sortedKeys(object) {
				item := reflect.New(into.Type().Elem()).Elem()
				r.value(join(path, key), object[key], item)
				into.SetMapIndex(reflect.ValueOf(key), item)
			}
		}
	case reflect.Slice:
		ok = r.slice(path, value, into)
	case reflect.String:
		text, is := value.(string)
		if ok = is; ok {
			into.SetString(text)
		} else if _, number := value.(json.Number); number {
			r.fault(path, "type", "", "must be a text: put the number in quotes")
		}
	case reflect.Bool:
		flag, is := value.(bool)
		if ok = is; ok {
			into.SetBool(flag)
		}
	case reflect.Int, reflect.Int64:
		if number, is := value.(json.Number); is {
			n, err := strconv.ParseInt(number.String(), 10, 64)
			if ok = err == nil; ok {
				into.SetInt(n)
			}
		}
	}
	if !ok {
		r.fault(path, "type", "", "must be %s", typeName(into.Type()))
	}
}

func (r *report) slice(path string, value any, into reflect.Value) bool {
	if into.Type().Elem().Kind() == reflect.Uint8 {
		text, is := value.(string)
		data, err := base64.StdEncoding.DecodeString(text)
		if err == nil {
			into.SetBytes(data)
		}
		return is && err == nil
	}
	list, is := value.([]any)
	if !is {
		return false
	}
	into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
	for i, item := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item == nil {
			r.fault(at, "type", "", "is empty")
		}
		r.value(at, item, into.Index(i))
	}
	return true
}

// object reads the keys of a mapping. Dex takes a key in any case, as encoding/json does, so its files have both.
func (r *report) object(path string, object map[string]any, into reflect.Value) {
	names, fields := fieldsOf(into.Type())
	seen := map[int]string{}
	for _, key := range sortedKeys(object) {
		at := join(path, key)
		field, known := -1, false
		for i, name := range names {
			if name == key || !known && strings.EqualFold(name, key) {
				field, known = fields[i], true
			}
			if name == key {
				break
			}
		}
		if !known {
			r.fault(at, "unknown-key", oauth.Nearest(key, names), "is not a key of this type of connector")
			continue
		}
		if other, twice := seen[field]; twice {
			r.fault(at, "unknown-key", "", "is the same key as %s", other)
			continue
		}
		seen[field] = key
		r.value(at, object[key], into.Field(field))
	}
}

// fieldsOf are the keys of a struct as its documentation spells them, with the numbers of the fields.
func fieldsOf(t reflect.Type) (names []string, fields []int) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		if name == "" { // Dex writes it so, and so is it documented
			name = strings.ToLower(field.Name[:1]) + field.Name[1:]
		}
		names, fields = append(names, name), append(fields, i)
	}
	return names, fields
}

// typeName completes the sentence "must be ...".
func typeName(t reflect.Type) string {
	_, custom := reflect.New(t).Interface().(json.Unmarshaler)
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Struct, reflect.Map:
		return "a mapping of keys"
	case reflect.Slice:
		switch {
		case t.Elem().Kind() == reflect.Uint8:
			return "a text in base64"
		case custom: // the names of attributes of ldap
			return "a text or a list of texts"
		case t.Elem().Kind() == reflect.String:
			return "a list of texts"
		}
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	}
	return "a text"
}

// join makes the path of a key.
func join(path, key string) string {
	plain := key != "" && len(key) <= 80 && !strings.ContainsFunc(key, func(c rune) bool {
		return c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
	switch {
	case !plain:
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	}
	return path + "." + key
}
