// Sends the form on by itself that goes on with what takes many steps.
"use strict";

const form = document.getElementById("on");
if (form) setTimeout(() => form.submit(), Number(form.dataset.wait));
