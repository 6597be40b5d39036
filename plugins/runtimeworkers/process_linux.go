package runtimeworkers

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// configFile gives text as a file that has no name, and how a child that gets it
// as descriptor childFD opens it.
func configFile(text string, childFD int, _ string) (file *os.File, path string, err error) {
	fd, err := unix.MemfdCreate("workerd-config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, "", fmt.Errorf("make the configuration: %w", err)
	}
	file = os.NewFile(uintptr(fd), "workerd-config")
	if _, err := file.WriteString(text); err != nil {
		_ = file.Close() // the write's error counts
		return nil, "", fmt.Errorf("write the configuration: %w", err)
	}
	return file, "/proc/self/fd/" + strconv.Itoa(childFD), nil
}

// discardConfig has nothing to remove.
func discardConfig(*os.File) {}
