package oauth

// OwnRemedies are the remedies for clients without a manifest.
func OwnRemedies() map[string]string { return ownRemedies }
