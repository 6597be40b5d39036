(() => {
  const form = document.getElementById("passkey");
  if (!form || !window.PublicKeyCredential) return;
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => buffer ? btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "") : undefined;
  const publicKey = JSON.parse(form.dataset.ask);
  const { user, allowCredentials = [], excludeCredentials = [] } = publicKey;
  publicKey.challenge = bytes(publicKey.challenge);
  if (user) user.id = bytes(user.id);
  for (const known of [...allowCredentials, ...excludeCredentials]) known.id = bytes(known.id);
  const say = (name) => {
    const all = [...form.querySelectorAll("[data-error]")];
    const one = name && (all.find((alert) => alert.dataset.error === name) || all[0]);
    for (const alert of all) alert.hidden = alert !== one;
  };
  let asking;
  const ask = async (mediation) => {
    if (asking) asking.abort();
    asking = new AbortController();
    const how = { publicKey, signal: asking.signal };
    if (mediation) how.mediation = mediation;
    try {
      const credential = await (user ? navigator.credentials.create(how) : navigator.credentials.get(how));
      const { id, rawId, type, response } = credential;
      form.elements.answer.value = JSON.stringify({
        id, rawId: text(rawId), type, clientExtensionResults: {},
        response: {
          clientDataJSON: text(response.clientDataJSON), attestationObject: text(response.attestationObject),
          authenticatorData: text(response.authenticatorData), signature: text(response.signature),
          userHandle: text(response.userHandle), transports: response.getTransports && response.getTransports(),
        },
      });
      form.submit();
    } catch (error) {
      if (mediation || error.name === "AbortError") return;
      say(error.name);
      offer();
    }
  };
  const offer = async () => {
    if ("offer" in form.dataset && PublicKeyCredential.isConditionalMediationAvailable &&
      await PublicKeyCredential.isConditionalMediationAvailable()) ask("conditional");
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    say();
    ask();
  });
  for (const shown of document.querySelectorAll("[data-able]")) shown.hidden = shown.dataset.able === "no";
  const { accepted } = form.dataset;
  if (accepted && PublicKeyCredential.signalAllAcceptedCredentials) {
    PublicKeyCredential.signalAllAcceptedCredentials(JSON.parse(accepted)).catch(() => {}); // some devices know no such thing
  }
  offer();
})();
