"use strict";

const docs = document.getElementById("docs");
// No fonts from elsewhere, no logo from elsewhere: the policy allows this host alone.
Redoc.init(docs.dataset.schema, { hideDownloadButtons: false, theme: { typography: { fontFamily: "sans-serif" } } }, docs);
