package config

import "testing"

// TestPackagedConfigurationLoads: what packages install serves as it is, with the variables of the unit.
func TestPackagedConfigurationLoads(t *testing.T) {
	t.Parallel()
	environ := []string{"WARIFU_STORAGE_CONFIG_DATA_DIR=" + t.TempDir(), "WARIFU_ADMIN_SOCKET=/run/warifu/admin.sock",
		"WARIFU_MANIFESTS_DIRECTORIES=" + t.TempDir()} // which the package makes
	if _, err := Read("../../../manifests/deploy/config.yaml", environ); err != nil {
		t.Fatal(err)
	}
}
