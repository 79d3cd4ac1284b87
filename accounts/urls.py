"""Paths below /api/v1/ that belong to users and sessions."""

from django.urls import path

from accounts.api import views

urlpatterns = [
    path("auth/register", views.RegisterView.as_view()),
    path("auth/token", views.TokenView.as_view()),
    path("auth/token/refresh", views.RefreshView.as_view()),
    path("auth/logout", views.LogoutView.as_view()),
    path("auth/logout-all", views.LogoutAllView.as_view()),
    path("auth/password", views.PasswordView.as_view()),
    path("auth/verify-email", views.VerifyEmailView.as_view()),
    path("auth/password-reset", views.PasswordResetView.as_view()),
    path("auth/password-reset/confirm", views.PasswordResetConfirmView.as_view()),
    path("auth/me", views.MeView.as_view()),
    path("auth/me/email", views.EmailView.as_view()),
    path("auth/sessions", views.SessionsView.as_view()),
    path("auth/sessions/<uuid:session_id>", views.SessionView.as_view()),
]
