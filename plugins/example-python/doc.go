// Package examplepython holds no Go but a test: beside it is plugin.py, a
// complete runtime plugin in Python, which shows that the contract of plugins is
// not Go's. The test runs it through the kit in plugins/plugintest.
package examplepython
