package manifests

import (
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// shape describes one place of a manifest. The checker walks a document along its shape, and the JSON Schema is
// generated from the same shape, so a key is added here and nowhere else.
type shape struct {
	kind     shapeKind
	about    string // for the author of a manifest, shown by editors
	nonEmpty bool   // a text, list or mapping that must hold something
	nullable bool   // "key:" with nothing after it is the same as no key

	fields []field     // of an object
	others unknownKeys // of an object: what happens to keys that are not among fields
	each   *shape      // of a list or mapping: its values

	constant string   // of a text: the only value
	choices  []string // of a text: the only values, for the schema; a rule refuses others
	most     int64    // of a number, which is never negative
	bare     bool     // of a text: numbers reach rule, which explains better than "must be text" what is wrong with 1.0
	unique   bool     // of a list of texts

	// rule checks what the kind cannot express. It is called only with values of the right kind.
	rule func(c *checker, v *strictyaml.Value, path string)
	// describe adds the part of rule that JSON Schema can express.
	describe func(s *jsonschema.Schema)
}

type shapeKind int

const (
	anyKind shapeKind = iota
	textKind
	flagKind
	numberKind // whole
	listKind
	objectKind  // known keys
	mappingKind // keys are names that the author chose
)

// field is a known key of an object.
type field struct {
	name     string
	required bool
	shape    *shape
}

type unknownKeys int

const (
	refuseUnknown unknownKeys = iota
	// warnUnknown refuses a misspelling of a known key all the same.
	warnUnknown
	// refuseMisspelled is for objects in which the wider platform has keys unknown to this project: only what is one
	// edit away from a known key is refused, and everything else passes.
	refuseMisspelled
)

// manifestShape is the whole app.yml. Keys that other tools of the platform act on are listed so that they pass.
var manifestShape = &shape{
	kind: objectKind, about: "An app: what it is, what runs it, and the OAuth client it wants.",
	fields: []field{
		{"apiVersion", true, &shape{kind: textKind, constant: APIVersion, about: "The version of this format."}},
		{"kind", true, &shape{kind: textKind, constant: Kind, about: "What the document describes."}},
		{"metadata", true, metadataShape},
		{"spec", true, specShape},
	},
}

var metadataShape = &shape{
	kind: objectKind, about: "What the app is called.",
	fields: []field{
		{"name", true, &shape{
			kind: textKind, rule: checkName, describe: describeName,
			about: "The app's name: a DNS label (lower-case letters, digits, hyphens), at most 63 characters.",
		}},
		{"appId", false, passing("The platform's own id of the app.")},
	},
}

var specShape = &shape{
	kind: objectKind, others: warnUnknown, about: "What the app is made of.",
	fields: []field{
		{"version", true, &shape{
			kind: textKind, bare: true, rule: checkVersion, describe: describeVersion,
			about: "The app's version, as in Semantic Versioning 2.0.0, such as 1.0.0.",
		}},
		{"oauth", false, oauthShape},
		{"workers", false, targets("Workers by name.", workerShape)},
		{"containers", false, targets("Containers by name.", containerShape)},
		{"services", false, targets("Services by name: containers that other parts of the app talk to.", containerShape)},
		{"routes", false, &shape{kind: listKind, nullable: true, each: routeShape,
			about: "Which target answers which path."}},
		{"description", false, passing("What the app does.")},
		{"icon", false, passing("The app's icon.")},
		{"category", false, passing("Where the app is listed.")},
		{"tags", false, passing("Words by which the app is found.")},
		{"capabilities", false, passing("What the app may do on the platform.")},
		{"takos", false, passing("Settings of the platform.")},
		{"lifecycle", false, passing("What happens on install, update and removal.")},
		{"update", false, passing("How new versions are rolled out.")},
		{"mcpServers", false, passing("MCP servers that the app offers.")},
		{"fileHandlers", false, passing("Files that the app opens.")},
		{"overrides", false, passing("Differences between environments.")},
		{"resources", false, passing("Databases, buckets and the like, by name.")},
		{"env", false, &shape{
			kind: objectKind, nullable: true, others: refuseMisspelled, about: "Environment variables of the whole app.",
			fields: []field{
				{"required", false, passing("Names that must be set before the app runs.")},
				{"inject", false, passing("Names and values that the platform sets.")},
			},
		}},
	},
}

var workerShape = &shape{
	kind: objectKind, nullable: true, others: warnUnknown, about: "A worker.",
	fields: []field{
		{"build", false, &shape{
			kind: objectKind, nullable: true, others: warnUnknown, about: "How the worker is built.",
			fields: []field{{"fromWorkflow", false, &shape{
				kind: objectKind, nullable: true, others: warnUnknown, about: "Take the bundle from a CI workflow.",
				fields: []field{
					{"path", false, passing("The workflow file.")},
					{"job", false, passing("The job that builds.")},
					{"artifact", false, passing("The artifact that the job uploads.")},
					{"artifactPath", false, passing("The bundle inside the artifact.")},
				},
			}}},
		}},
		{"artifact", false, passing("A bundle that is built already.")},
		{"env", false, envShape},
		{"bindings", false, passing("Resources that the worker reaches.")},
		{"triggers", false, passing("Schedules and queues that wake the worker.")},
		{"healthCheck", false, passing("How to check that the worker is healthy.")},
		{"scaling", false, passing("How many instances run.")},
		{"containers", false, passing("Containers that belong to the worker.")},
		{"dependsOn", false, passing("What must run first.")},
	},
}

var containerShape = &shape{
	kind: objectKind, nullable: true, others: refuseMisspelled, about: "A container.",
	fields: []field{
		{"port", false, passing("The port that the container listens on.")},
		{"dockerfile", false, passing("The Dockerfile to build.")},
		{"imageRef", false, passing("The image to run.")},
		{"artifact", false, passing("An image that is built already.")},
		{"env", false, envShape},
		{"volumes", false, passing("Storage that outlives the container.")},
		{"dependsOn", false, passing("What must run first.")},
	},
}

var routeShape = &shape{
	kind: objectKind, others: warnUnknown, about: "A route.",
	fields: []field{
		{"name", false, passing("The route's name.")},
		{"target", true, &shape{
			kind: textKind, nonEmpty: true, about: "The worker, container or service that answers.",
		}},
		{"path", false, passing("The path that is answered, with all below it.")},
	},
}

var envShape = &shape{
	rule: checkEnv, describe: describeEnv,
	about: "Environment variables: names to values, or a list of name and value. The names that spec.oauth.autoEnv " +
		"sets are reserved.",
}

// passing is a key that other tools act on.
func passing(about string) *shape { return &shape{about: about} }

func targets(about string, each *shape) *shape {
	return &shape{kind: mappingKind, nullable: true, each: each, about: about, rule: checkTargetNames,
		describe: describeTargets}
}
