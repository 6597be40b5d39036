//go:build !linux

package runtimeworkers

import (
	"fmt"
	"os"
)

// configFile writes text into a file that discardConfig removes after the start.
func configFile(text string, _ int, dir string) (file *os.File, path string, err error) {
	file, err = os.CreateTemp(dir, ".config-*") // mode 0600
	if err != nil {
		return nil, "", fmt.Errorf("make the configuration: %w", err)
	}
	if _, err := file.WriteString(text); err != nil {
		discardConfig(file)
		_ = file.Close() // the write's error counts
		return nil, "", fmt.Errorf("write the configuration: %w", err)
	}
	return file, file.Name(), nil
}

// discardConfig removes the file; what stays is removed at the next start.
func discardConfig(file *os.File) { _ = os.Remove(file.Name()) }
