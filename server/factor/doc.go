// Package factor is what people prove with at this server who they are: passwords, codes of an authenticator app,
// recovery codes, passkeys. It checks and makes them, and knows neither requests nor the store: what it is given and
// returns are the records of package storage ([storage.Factors]), which its callers write together with what follows.
//
// What was checked counts once: a check returns the record as it is afterwards, with the step, the counter or the mark
// moved on, and the transaction that begins the session compares that nobody else has moved it.
package factor
