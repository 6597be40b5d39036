//go:build !linux

package plugintest

// seesProcesses says whether the kit can look at processes here.
const seesProcesses = false

func stop(int) error            { return nil }
func askForStacks(int)          {}
func descendants(int) []int     { return nil }
func started(string) []int      { return nil }
func alive(int) bool            { return false }
func commandLine(int) []byte    { return nil }
func environ(int) []byte        { return nil }
func sockets(int) []string      { return nil }
func written(int) (int64, bool) { return 0, false }
