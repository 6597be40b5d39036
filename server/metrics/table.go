package metrics

// kind is what a family is to Prometheus.
type kind int

const (
	counter kind = iota
	histogram
	told // a gauge, which sources tell
)

// family is a row of the table.
type family struct {
	name    string
	kind    kind
	labels  []label
	help    string
	buckets []float64
}

// label of a family. Its values are the table's, or else, where it has none, those of the rooms that count: routes,
// rules, grant types, and names in the configuration.
type label struct {
	name   string
	values []string
}

func of(name string, values ...string) label { return label{name, values} }

// Families that sources tell, by name; the others have methods.
const (
	BuildInfo        = "warifu_build_info"
	RequestsAtWork   = "warifu_requests_at_work"
	RequestsWaiting  = "warifu_requests_waiting"
	RequestsArriving = "warifu_requests_arriving"
	PasswordsWaiting = "warifu_passwords_waiting"

	Deliveries          = "warifu_deliveries"
	DeliveryOldest      = "warifu_delivery_oldest_seconds"
	RotationsUnderWay   = "warifu_rotations_under_way"
	RotationOldest      = "warifu_rotation_oldest_seconds"
	KeyAge              = "warifu_key_age_seconds"
	Keys                = "warifu_keys"
	ClientSecretAge     = "warifu_client_secret_oldest_seconds"
	Clients             = "warifu_clients"
	StorageFull         = "warifu_storage_full"
	EtcdUp              = "warifu_etcd_up"
	EtcdSize            = "warifu_etcd_database_bytes"
	EtcdSizeUsed        = "warifu_etcd_database_used_bytes"
	EtcdQuota           = "warifu_etcd_quota_bytes"
	EtcdAlarms          = "warifu_etcd_alarms"
	WatchLag            = "warifu_watch_lag_seconds"
	ClocksApart         = "warifu_clocks_apart"
	LettersWaiting      = "warifu_letters_waiting"
	PluginUp            = "warifu_plugin_up"
	Replicas            = "warifu_replicas"
	CertificateStart    = "warifu_certificate_start_timestamp_seconds"
	CertificateEnd      = "warifu_certificate_end_timestamp_seconds"
	replicasDiffer      = "warifu_replicas_configuration_differs"
	reloadRefused       = "warifu_configuration_refused"
	lastReload          = "warifu_configuration_last_reload_timestamp_seconds"
	requestsTotal       = "warifu_requests_total"
	requestSeconds      = "warifu_request_duration_seconds"
	grantsTotal         = "warifu_grants_total"
	appGrantsTotal      = "warifu_app_grants_total"
	refusalsTotal       = "warifu_refusals_total"
	signInsTotal        = "warifu_sign_ins_total"
	factorsTotal        = "warifu_second_factors_total"
	deliveriesTotal     = "warifu_delivery_outcomes_total"
	driftTotal          = "warifu_drift_found_total"
	rotationStepsTotal  = "warifu_rotation_steps_total"
	keyTurnsTotal       = "warifu_key_turns_total"
	etcdTotal           = "warifu_etcd_requests_total"
	etcdSeconds         = "warifu_etcd_request_duration_seconds"
	lettersTotal        = "warifu_letters_total"
	pluginStartsTotal   = "warifu_plugin_starts_total"
	pluginFailuresTotal = "warifu_plugin_failures_total"
	pluginSeconds       = "warifu_plugin_call_duration_seconds"
	reloadsTotal        = "warifu_configuration_reloads_total"
	spansLostTotal      = "warifu_trace_spans_lost_total"
)

// Bounds of durations, in seconds.
var (
	requestBounds = []float64{.001, .0025, .005, .01, .025, .1, .5, 1, 5}
	pluginBounds  = []float64{.005, .025, .1, .5, 1, 5, 15, 30}
)

// table is everything that is counted or told. What begins with go_ and process_ comes from the client of Prometheus.
var table = []family{
	{BuildInfo, told, []label{of("version"), of("go")},
		"Always 1; its labels are the version of this program and of Go.", nil},

	{requestsTotal, counter, []label{of("route"), of("outcome", "ok", "refused", "failed")},
		"Requests of browsers and apps that were answered. outcome: ok, refused (by a rule, or because there is " +
			"nothing of that kind), failed (a fault of this server or of what it needs).", nil},
	{requestSeconds, histogram, []label{of("route")},
		"How long requests took, from the headers to the end of the answer.", requestBounds},
	{RequestsAtWork, told, nil, "Requests that are being processed at this moment; 256 at most.", nil},
	{RequestsWaiting, told, nil,
		"Requests that wait to be processed; beyond 1,024 they are turned away.", nil},
	{RequestsArriving, told, nil, "Bodies of requests that are arriving.", nil},
	{grantsTotal, counter, []label{of("grant_type"), of("outcome", "ok", "pending", "refused", "failed")},
		"Requests for tokens by clients that have authenticated. outcome: ok, pending (a device whose user has " +
			"not decided yet), refused, failed.", nil},
	{appGrantsTotal, counter, []label{of("app"), of("grant_type"),
		of("outcome", "ok", "pending", "refused", "failed")},
		"Requests for tokens by app, of apps that have a manifest; only with telemetry.apps.", nil},
	{refusalsTotal, counter, []label{of("rule")},
		"Requests that were refused, and forms that are shown again, by rule (warifu explain).", nil},
	{signInsTotal, counter, []label{of("way", "password", "passkey", "directory", "provider"),
		of("outcome", "ok", "refused", "locked", "busy", "cancelled", "failed")},
		"Sign-ins. way: password, passkey, directory, provider. outcome: ok, refused, locked (too many " +
			"guesses), busy, cancelled, failed (a connector or storage does not answer).", nil},
	{factorsTotal, counter, []label{of("factor", "code", "recovery", "passkey"), of("outcome", "ok", "refused", "locked")},
		"Second factors that were given. factor: code (of an authenticator app), recovery, passkey. outcome: " +
			"ok, refused, locked.", nil},
	{PasswordsWaiting, told, nil, "People whose password waits to be checked.", nil},

	{Deliveries, told, []label{of("state", "pending", "rolling", "ready", "failed", "degraded", "removing")},
		"Targets by the state of their env: pending, rolling, ready, failed, degraded, removing. All replicas " +
			"report the same.", nil},
	{DeliveryOldest, told, nil,
		"How long the longest-waiting target has waited for its env; 0 if none is waiting.", nil},
	{deliveriesTotal, counter, []label{of("state", "pending", "rolling", "ready", "failed", "degraded", "removed")},
		"This replica's attempts to deliver, and its checks that found a change, by the state in which they " +
			"left the target.", nil},
	{driftTotal, counter, nil, "Env that was found lost or changed at its target.", nil},
	{RotationsUnderWay, told, nil, "Client secrets that are being replaced.", nil},
	{RotationOldest, told, nil, "Age of the oldest of these rotations; 0: there is none.", nil},
	{rotationStepsTotal, counter, []label{of("step", "begun", "served", "used", "retired")},
		"Steps of rotations of client secrets that this replica has taken: begun, served, used, retired.", nil},

	{KeyAge, told, []label{of("use")}, "Age of the key that signs or seals now, by use.", nil},
	{Keys, told, []label{of("use")}, "Keys by use, those included that wait for their turn or only verify.", nil},
	{keyTurnsTotal, counter, []label{of("use")}, "Key rotations that this replica carried out, by use.", nil},
	{ClientSecretAge, told, nil,
		"Age of the oldest client secret that is its client's newest; 0: there is none.", nil},
	{Clients, told, []label{of("origin", "manifest", "self")},
		"Registered clients: of a manifest, or by themselves (self).", nil},

	{etcdTotal, counter, []label{of("kind", "read", "write"), of("outcome", "ok", "failed")},
		"Requests to etcd: read, write (a transaction). outcome: ok, failed.", nil},
	{etcdSeconds, histogram, []label{of("kind", "read", "write")}, "How long etcd took to answer.", requestBounds},
	{StorageFull, told, nil, "1 while etcd is out of room and accepts only reads and deletes.", nil},
	{EtcdUp, told, []label{of("member")}, "1 if the member answers.", nil},
	{EtcdSize, told, []label{of("member")}, "Size of the member's database file.", nil},
	{EtcdSizeUsed, told, []label{of("member")}, "How much of the member's database file is in use.", nil},
	{EtcdQuota, told, []label{of("member")},
		"Size at which the member stops accepting writes; not reported before etcd 3.6.", nil},
	{EtcdAlarms, told, []label{of("member"), of("alarm", "NOSPACE", "CORRUPT")},
		"1 for each alarm of a member: NOSPACE, CORRUPT.", nil},
	{WatchLag, told, nil,
		"How far what this replica has in memory (clients, keys) may lag behind etcd: how long its slowest " +
			"watch took to confirm that it is up to date, or has been failing to.", nil},
	{ClocksApart, told, nil, "Other replicas whose clocks differ from this one's by more than a minute.", nil},

	{LettersWaiting, told, nil, "E-mails that wait for the mail server.", nil},
	{lettersTotal, counter, []label{of("outcome", "sent", "again", "lost")},
		"E-mails: sent, again (an attempt that failed and is repeated), lost.", nil},

	{PluginUp, told, []label{of("kind", "hook", "runtime"), of("plugin")},
		"1 while the plugin's process runs, 0 when it has ended or does not start. Plugins that have not " +
			"been used yet are not reported.", nil},
	{pluginStartsTotal, counter, []label{of("kind", "hook", "runtime"), of("plugin")},
		"Starts of the plugin's process that succeeded.", nil},
	{pluginFailuresTotal, counter, []label{of("kind", "hook", "runtime"), of("plugin")},
		"Ends of the plugin's process, and starts that failed.", nil},
	{pluginSeconds, histogram, []label{of("plugin"), of("call")},
		"How long plugins took to answer.", pluginBounds},

	{CertificateStart, told, []label{of("listener", "web.https", "admin.listen")},
		"When the certificate that a listener serves begins to be valid (Unix time); only of those that have one.", nil},
	{CertificateEnd, told, []label{of("listener", "web.https", "admin.listen")},
		"When the certificate that a listener serves expires (Unix time). Renewing it needs no restart.", nil},

	{spansLostTotal, counter, []label{of("cause", "queue", "collector")},
		"Spans of traces that are lost. cause: queue (too many waited for a collector that is slow or away), " +
			"collector (it did not take them, or not all of those that were sent together).", nil},

	{reloadsTotal, counter, []label{of("outcome", "ok", "refused")},
		"Configurations that were read again. outcome: ok (it was taken into use), refused (what was there " +
			"before stays in use; the same refusal again is not counted).", nil},
	{reloadRefused, told, nil, "1 while the configuration that was read last is one that was refused.", nil},
	{lastReload, told, nil, "When a configuration was last taken into use, the start included (Unix time).", nil},
	{Replicas, told, nil, "Replicas that were heard from recently, including this one.", nil},
	{replicasDiffer, told, nil, "Other replicas whose configuration differs from this one's.", nil},
}
