(() => {
  const field = document.getElementById("password");
  const button = document.getElementById("reveal");
  const show = (shown) => {
    field.type = shown ? "text" : "password";
    button.children[0].hidden = shown;
    button.children[1].hidden = !shown;
  };
  button.addEventListener("click", () => show(field.type === "password"));
  field.form.addEventListener("submit", () => show(false));
  button.hidden = false;
})();
