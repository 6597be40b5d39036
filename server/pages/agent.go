package pages

import "strings"

// What a browser calls itself (User-Agent, RFC 9110 section 10.1.5) has been made to look like others for thirty years.
// So the words for it come from a short list of what people use, in the order in which they hide each other, and what
// is not in it is shown as it is.

var browsers = []struct{ mark, name string }{
	{"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"},
	{"Vivaldi/", "Vivaldi"}, {"YaBrowser/", "Yandex Browser"}, {"FxiOS/", "Firefox"}, {"Firefox/", "Firefox"},
	{"CriOS/", "Chrome"}, {"Chromium/", "Chromium"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
}

var systems = []struct{ mark, name string }{
	{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Windows", "Windows"},
	{"Macintosh", "macOS"}, {"Linux", "Linux"}, {"FreeBSD", "FreeBSD"},
}

// device is what of a browser and its system is known; either may be empty.
func device(agent string) (browser, system string) {
	for _, b := range browsers {
		if strings.Contains(agent, b.mark) {
			browser = b.name
			break
		}
	}
	for _, s := range systems {
		if strings.Contains(agent, s.mark) {
			system = s.name
			break
		}
	}
	return browser, system
}

// Agent is a browser in words of no language, as in "Firefox (Linux)", or else what it calls itself.
func Agent(agent string) string {
	browser, system := device(agent)
	switch {
	case browser == "":
		return agent
	case system == "":
		return browser
	}
	return browser + " (" + system + ")"
}

// device is a browser in words: as in "Firefox on Linux", or else what it calls itself, "" for nothing.
func (tx texts) device(agent string) (string, error) {
	browser, system := device(agent)
	switch {
	case browser == "":
		return plain(agent, maxName), nil
	case system == "":
		return browser, nil
	}
	return tx.text("device.browser", "Browser", browser, "System", system)
}
